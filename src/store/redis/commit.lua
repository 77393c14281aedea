-- Applies one commit to a partition, atomically. Follows read.lua and head.lua. The contract is in src/store/mod.rs.
--
-- key      the partition's hash
-- args[1]  commit id, 8 bytes
-- args[2]  generation under which the changes were made
-- args[3]  absolute lifetime, ms; 0 = none
-- args[4]  sliding lifetime, ms; 0 = none
-- args[5]  maximal age, ms; 0 = none
-- args[6]  life of a tombstone, ms
-- args[7]  id of the expected entry (16 bytes), or empty for none
-- args[8]  its version; 0 = absent
-- args[9]  the life that it goes on with, 8 bytes, or empty
-- args[10] the version known when it was first sent, or empty when it was not sent before
-- args[11] the version for which the values are laid out, if the writer has guessed right
-- then, per change: entry id (16 bytes), expiry (ms since the epoch; -1 = none, -2 = remove), the entry
-- allowed  asked last, if given: false is a conflict
--
-- Answers {1, version, idle, hard, previous, life}: committed, with the rest of its life in ms (-1 =
-- without end), the id of the commit before it and the partition's first; {0, generation}: signed out
-- since; {2}: in conflict with what was expected; or {4}: the life that it goes on with is over.
local function commit(key, args, allowed)
  local REMEMBERED, PRUNE_EVERY = 16, 60000

  local now = clock()

  local function left(at)
    return at >= 0 and math.max(at - now, 0) or -1
  end

  local generation = tonumber(args[2])
  local head = read_head(key) or {generation = -1, version = 0}
  local version = head.version
  local created, cleared, last, prune, recent = now, -1, 0, 0, ''
  local fresh = true

  if head.generation > generation then
    return {0, head.generation}
  end
  if head.generation == generation then
    recent = head.recent
    local at = find(recent, args[1])
    if at then
      -- Others may have been between the first and the oldest of the recent ones.
      local before = at == 9 and #recent > 8 * REMEMBERED and '' or string.sub(recent, at - 8, at - 1)
      return {1, version, left(head.ends), left(head.hard), before, string.sub(recent, 1, 8)}
    end
    cleared = head.cleared
    fresh = head.ends >= 0 and head.ends <= now
    if not fresh then
      created, last, prune = head.created, head.last, head.prune
    end
  end

  local life = string.sub(recent, 1, 8)
  if #args[9] > 0 and (fresh or (#life == 8 and life ~= args[9])) then
    return {4}
  end
  -- As long as no more have come since, its id would be remembered.
  local spares = tonumber(args[10])
  if spares and version <= spares + REMEMBERED then spares = nil end

  if #args[7] > 0 then
    local expected, found, absent = tonumber(args[8]), 0, true
    local entry = not fresh and redis.call('HGET', key, 'e' .. args[7])
    if entry and #entry >= 16 then
      local expiry
      found, expiry = struct.unpack('>I8I8', entry)
      absent = expiry > 0 and expiry <= now
    end
    if expected ~= found and not (absent and expected == 0) then
      return {2}
    end
  end
  if allowed and not allowed() then
    return {2}
  end

  if fresh then
    redis.call('DEL', key)
  elseif prune > 0 and prune <= now then
    -- Frees expired entries, at most once in a while: this is the only step that reads them all.
    prune = 0
    local fields = redis.call('HGETALL', key)
    for at = 1, #fields, 2 do
      if string.sub(fields[at], 1, 1) == 'e' and #fields[at + 1] >= 16 then
        local _, expiry = struct.unpack('>I8I8', fields[at + 1])
        if expiry > 0 and expiry <= now then
          redis.call('HDEL', key, fields[at])
        elseif expiry > 0 and (prune == 0 or expiry < prune) then
          prune = expiry
        end
      end
    end
    if prune > 0 then prune = math.max(prune, now + PRUNE_EVERY) end
  end

  version = version + 1
  local previous = string.sub(recent, -8)
  recent = recent .. args[1]
  if #recent > 8 * (1 + REMEMBERED) then
    recent = string.sub(recent, 1, 8) .. string.sub(recent, -8 * REMEMBERED)
  end
  local function spared(field)
    local entry = spares and redis.call('HGET', key, field)
    if not entry or #entry < 16 then return false end
    local written = struct.unpack('>I8', entry)
    return written > spares
  end
  local guessed = args[11] == text(version)
  -- All at once, as far as a command takes it: each call has its price.
  local puts, BATCH = {}, 1000
  for at = 12, #args, 3 do
    local field, expiry = 'e' .. args[at], tonumber(args[at + 1])
    if spared(field) then
      -- Somebody has written it later.
    elseif expiry == -2 then
      redis.call('HDEL', key, field)
    else
      local entry = args[at + 2]
      if not guessed then
        entry = struct.pack('>I8', version) .. string.sub(entry, 9)
      end
      puts[#puts + 1], puts[#puts + 2] = field, entry
      if #puts >= BATCH then
        redis.call('HSET', key, unpack(puts))
        puts = {}
      end
      if expiry == -1 then
        last = -1
      else
        if last ~= -1 then last = math.max(last, expiry) end
        if prune == 0 or expiry < prune then prune = expiry end
      end
    end
  end

  local absolute, sliding, age = tonumber(args[3]), tonumber(args[4]), tonumber(args[5])
  local hard = -1
  local function earlier(at, other) return at >= 0 and math.min(at, other) or other end
  if absolute > 0 then hard = earlier(hard, now + absolute) end
  if age > 0 then hard = earlier(hard, created + age) end
  if last ~= -1 then hard = earlier(hard, last) end
  local ends = hard
  if sliding > 0 then ends = earlier(hard, now + sliding) end

  write_head(key, {
    generation = generation, version = version, created = created, cleared = cleared, hard = hard,
    ends = ends, sliding = sliding, last = last, prune = prune, recent = recent
  }, puts)
  if ends >= 0 then
    -- The tombstone outlives what came after it.
    local tombstone = cleared >= 0 and cleared + tonumber(args[6]) or 0
    redis.call('PEXPIREAT', key, text(math.max(ends, tombstone)))
  else
    redis.call('PERSIST', key)
  end
  return {1, version, left(ends), left(hard), previous, string.sub(recent, 1, 8)}
end
