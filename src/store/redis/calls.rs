//! How scripts are called, alone and in groups.

use bb8_redis::redis::{Cmd, Pipeline, RedisResult, Value};

use super::answers::{lost_script, partition, store_error, time, unexpected};
use super::scripts::{self, Lua, hash_key};
use super::{RedisStore, record};
use crate::error::StoreError;
use crate::store::{Commit, Loaded, Origin, Outcome, PartitionId};

impl RedisStore {
    /// Asks whether a server answers.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("PING");
        let answers = self.send(&pipeline).await?;
        let answer = answers.into_iter().next().ok_or_else(unexpected)?;
        answer.map(drop).map_err(store_error)
    }

    pub(super) async fn send(
        &self,
        pipeline: &Pipeline,
    ) -> Result<Vec<RedisResult<Value>>, StoreError> {
        self.links.send(pipeline).await.map_err(store_error)
    }

    /// Each server that is asked also says what time it is, once: right behind the first of its
    /// partitions, for a command without a key goes where the one before it goes.
    pub(super) async fn load_group(
        &self,
        group: &[PartitionId],
    ) -> Result<Vec<Result<Loaded, StoreError>>, StoreError> {
        if group.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::with_capacity(group.len() + 1);
        let mut asked = Vec::with_capacity(1);
        let mut servers = Vec::with_capacity(group.len());
        for id in group {
            pipeline.cmd("HGETALL").arg(hash_key(id));
            let server = self.links.server(id);
            let first = !asked.contains(&server);
            if first {
                asked.push(server);
                pipeline.cmd("TIME");
            }
            servers.push((server, first));
        }
        let mut answers = self.send(&pipeline).await?.into_iter();
        let mut times = Vec::with_capacity(asked.len());
        let mut loaded = Vec::with_capacity(group.len());
        for (server, first) in servers {
            let hash = answers.next().ok_or_else(unexpected)?;
            if first {
                times.push((server, time(answers.next().ok_or_else(unexpected)?)));
            }
            let now = times.iter().find(|(of, _)| *of == server);
            let (_, now) = now.ok_or_else(unexpected)?;
            loaded.push(match now {
                Ok(now) => partition(hash, *now),
                Err(error) => Err(error.clone()),
            });
        }
        Ok(loaded)
    }

    /// Runs one script per command. Where a server does not know it, it goes out in full, which
    /// the server remembers.
    pub(super) async fn run(
        &self,
        script: &Lua,
        commands: impl Iterator<Item = Cmd>,
    ) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        let mut pipeline = Pipeline::new();
        for command in commands {
            pipeline.add_command(command);
        }
        let mut answers = self.send(&pipeline).await?;
        let mut full = Pipeline::new();
        for (command, _) in pipeline
            .cmd_iter()
            .zip(&answers)
            .filter(|(_, a)| lost_script(a))
        {
            full.add_command(script.in_full(command));
        }
        if !full.is_empty() {
            let late = self.send(&full).await?;
            let lost = answers.iter_mut().filter(|answer| lost_script(answer));
            lost.zip(late).for_each(|(answer, late)| *answer = late);
        }
        Ok(answers
            .into_iter()
            .map(|answer| answer.map_err(store_error))
            .collect())
    }

    pub(super) async fn run_one(&self, script: &Lua, command: Cmd) -> Result<Value, StoreError> {
        let answers = self.run(script, std::iter::once(command)).await?;
        answers
            .into_iter()
            .next()
            .unwrap_or_else(|| Err(unexpected()))
    }

    /// Moves a partition to another server. A crash in between loses what was to be moved rather
    /// than leave the old session valid; until then the caller can repeat it.
    pub(super) async fn relocate_in_steps(
        &self,
        from: &Origin,
        commit: &Commit,
    ) -> Result<Outcome, StoreError> {
        let check = scripts::check(commit);
        let answer = self.run_one(&scripts::CHECK, check).await?;
        if !record::is_ready(&answer) {
            return record::outcome(answer).ok_or_else(unexpected);
        }
        let leave = scripts::leave(from, commit.id);
        if self.run_one(&scripts::LEAVE, leave).await? != Value::Int(1) {
            return Ok(Outcome::Conflict);
        }
        let command = scripts::commit(commit);
        let answer = self.run_one(&scripts::COMMIT, command).await?;
        record::outcome(answer).ok_or_else(unexpected)
    }
}
