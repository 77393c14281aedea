//! Text in cookies: names, chunks and attributes.

use http::header::COOKIE;

use crate::codec::Unopenable;
use crate::key::RequestHead;
use crate::session::SameSite;

/// The longest `Set-Cookie` line: browsers take 4,096 bytes, and some count three more.
const MAX_LINE: usize = 4093;
/// Room for `Max-Age` and for the number of chunks.
const VARIABLE: usize = 24;
/// Chunks that are looked at: more than the largest limit needs.
const MAX_CHUNKS: usize = 32;

/// How the cookies are called, and what stands behind each.
#[derive(Debug)]
pub(super) struct Chunks {
    name: Box<str>,
    attributes: String,
    /// Text in one cookie.
    capacity: usize,
}

/// What a request has brought.
#[derive(Debug, Default)]
pub(super) struct Brought {
    /// Bit `i`: there is a cookie with number `i`.
    pub(super) present: u32,
    pub(super) text: Option<Result<Vec<u8>, Unopenable>>,
}

impl Chunks {
    pub(super) fn new(name: Box<str>, same_site: SameSite, secure: bool) -> Self {
        let secure = if secure { "; Secure" } else { "" };
        let same_site = same_site.as_str();
        let attributes = format!("; Path=/; HttpOnly{secure}; SameSite={same_site}");
        let fixed = name.len() + ".00=; Max-Age=".len() + attributes.len() + VARIABLE;
        Self {
            capacity: MAX_LINE - fixed,
            name,
            attributes,
        }
    }

    /// What `length` bytes of text add to a request's head, names included.
    pub(super) fn request_bytes(&self, length: usize) -> usize {
        let chunks = length.div_ceil(self.capacity);
        length + chunks * (self.name.len() + "; .00=".len()) + 3
    }

    /// Puts the chunks of a request together. Text beyond `max_size` is not looked at.
    pub(super) fn read(&self, head: &RequestHead<'_>, max_size: usize) -> Brought {
        let mut parts: [Option<&[u8]>; MAX_CHUNKS] = [None; MAX_CHUNKS];
        let mut twice = false;
        let mut brought = Brought::default();
        let pairs = head.headers(&COOKIE);
        let pairs = pairs.flat_map(|header| header.split(|byte| *byte == b';'));
        for pair in pairs {
            let Some((index, value)) = self.part(pair.trim_ascii()) else {
                continue;
            };
            twice |= parts[index].is_some_and(|other| other != value);
            parts[index] = Some(value);
            brought.present |= 1 << index;
        }
        if brought.present != 0 {
            let text = match twice {
                // Which one the browser means is anybody's guess.
                true => Err(Unopenable::Misplaced),
                false => join(&parts, max_size),
            };
            brought.text = Some(text);
        }
        brought
    }

    fn part<'a>(&self, pair: &'a [u8]) -> Option<(usize, &'a [u8])> {
        let rest = pair.strip_prefix(self.name.as_bytes())?;
        let rest = rest.strip_prefix(b".")?;
        let split = rest.iter().position(|byte| *byte == b'=')?;
        Some((number(&rest[..split])?, &rest[split + 1..]))
    }

    /// The lines that set this text, and remove what was `present` besides.
    pub(super) fn set(&self, text: &str, max_age: u64, present: u32) -> Vec<String> {
        let count = text.len().div_ceil(self.capacity);
        let chunks = text.as_bytes().chunks(self.capacity).enumerate();
        let lines = chunks.map(|(index, chunk)| {
            let number = match index {
                0 => format!("{count}."),
                _ => String::new(),
            };
            let chunk = String::from_utf8_lossy(chunk);
            self.line(index, &format!("{number}{chunk}"), max_age)
        });
        let mut lines: Vec<_> = lines.collect();
        let kept = 1_u32.checked_shl(count as u32).unwrap_or(0).wrapping_sub(1);
        lines.extend(self.remove(present & !kept));
        lines
    }

    /// The lines that remove the cookies of these numbers.
    pub(super) fn remove(&self, present: u32) -> impl Iterator<Item = String> {
        let stale = (0..MAX_CHUNKS).filter(move |index| present & (1 << index) != 0);
        stale.map(|index| self.line(index, "", 0))
    }

    fn line(&self, index: usize, value: &str, max_age: u64) -> String {
        let (name, attributes) = (&self.name, &self.attributes);
        let line = format!("{name}.{index}={value}{attributes}; Max-Age={max_age}");
        debug_assert!(line.len() <= MAX_LINE, "a line of {} bytes", line.len());
        line
    }
}

/// The number of a chunk as it is written here, and in no other way: a cookie `.01` could not be
/// removed as `.1`.
fn number(digits: &[u8]) -> Option<usize> {
    let canonical = digits == b"0" || !matches!(digits.first(), None | Some(b'0' | b'+'));
    let text = std::str::from_utf8(digits).ok().filter(|_| canonical)?;
    text.parse().ok().filter(|number| *number < MAX_CHUNKS)
}

/// The text in `parts`, of which the first says how many there are.
fn join(parts: &[Option<&[u8]>], max_size: usize) -> Result<Vec<u8>, Unopenable> {
    let first = parts.first().copied().flatten();
    let first = first.ok_or(Unopenable::Foreign)?;
    let split = first.iter().position(|byte| *byte == b'.');
    let (count, rest) = first.split_at(split.ok_or(Unopenable::Foreign)?);
    let count: usize = std::str::from_utf8(count)
        .ok()
        .and_then(|count| count.parse().ok())
        .filter(|count| (1..=MAX_CHUNKS).contains(count))
        .ok_or(Unopenable::Foreign)?;
    let mut text = rest[1..].to_vec();
    for part in &parts[1..count] {
        // One that is missing, as after a browser's own clean-up.
        text.extend_from_slice(part.ok_or(Unopenable::Foreign)?);
        if text.len() > max_size {
            return Err(Unopenable::TooLarge);
        }
    }
    Ok(text)
}
