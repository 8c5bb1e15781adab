//! apalis' keys, with scripts of our own where its own lose count: a take-over there counts no attempt and leaves the
//! status, a failed job is due `attempt` seconds later whatever one says, every job ends after 25 attempts, and nobody
//! is told of a job that was pushed. Times are Redis' own.

use std::{
    convert::Infallible,
    sync::{LazyLock, OnceLock},
    time::Duration,
};

use apalis_core::task::{Task, builder::TaskBuilder, metadata::MetadataStore, task_id::TaskId};
use apalis_redis::Config;
use futures_util::StreamExt;
use redis::{Client, Script, aio::ConnectionManager};
use serde_json::Value;

use super::{Counts, Dead, Ended, LOST_TOO_OFTEN, Recovered, Registration, Verdict, error_of};
use crate::{
    Error,
    error::without_password,
    job::{Enqueued, MAX_ATTEMPTS},
    report::report,
};

/// Published to when something may be fetched; the message is the queue.
const CHANNEL: &str = "after-apalis:wake";
/// Every queue that something was pushed to.
const QUEUES: &str = "after-apalis:queues";
/// How long an idempotency key is kept: ten years.
const KEY_SECONDS: u64 = 10 * 365 * 86400;

pub(crate) struct Redis {
    client: Client,
    pub(crate) connection: ConnectionManager,
    limit: Duration,
    warned: OnceLock<()>,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}

const NOW: &str = "local time = redis.call('TIME')\nlocal now = tonumber(time[1]) + tonumber(time[2]) / 1000000\n";

fn script(text: &str) -> Script {
    Script::new(&format!("{NOW}{text}"))
}

// What apalis' own stores; but due by Redis' clock, and told, in one call. Of a job for later nobody is told.
// Data, meta, scheduled, idempotency prefix, queues; id, payload, attempts, most, when or 0, key, seconds of the key, channel,
// queue, then metadata.
static PUSH: LazyLock<Script> = LazyLock::new(|| {
    script(
        "local id, key = ARGV[1], ARGV[6]
        if key ~= '' and not redis.call('SET', KEYS[4] .. ':' .. key, id, 'NX', 'EX', ARGV[7]) then return 0 end
        if redis.call('HSETNX', KEYS[1], id, ARGV[2]) == 0 then return 0 end
        redis.call('HSET', KEYS[2] .. ':' .. id, 'attempts', ARGV[3], 'max_attempts', ARGV[4], 'status', 'Pending',
            'idempotency_key', key, unpack(ARGV, 10))
        local at = math.max(tonumber(ARGV[5]), math.floor(now))
        redis.call('ZADD', KEYS[3], at, id)
        redis.call('SADD', KEYS[5], ARGV[9])
        if at <= now then redis.call('PUBLISH', ARGV[8], ARGV[9]) end
        return 1",
    )
});

// Workers, metadata of the worker; name, kind, service, queue.
static REGISTER: LazyLock<Script> = LazyLock::new(|| {
    script(
        "redis.call('ZADD', KEYS[1], now, ARGV[1])
        redis.call('ZADD', 'core:apalis:queues:list', 'GT', now, KEYS[1])
        redis.call('HSET', KEYS[2], 'backend_name', ARGV[2], 'service', ARGV[3])
        redis.call('SADD', KEYS[3], ARGV[4])",
    )
});

// Workers, active, in flight, data, meta, scheduled; most, worker.
static FETCH: LazyLock<Script> = LazyLock::new(|| {
    script(
        "local most = tonumber(ARGV[1])
        local due = redis.call('ZRANGEBYSCORE', KEYS[6], 0, now, 'LIMIT', 0, 1000)
        if #due > 0 then
            redis.call('RPUSH', KEYS[2], unpack(due))
            redis.call('ZREM', KEYS[6], unpack(due))
        end
        redis.call('ZADD', KEYS[1], 'GT', now, ARGV[2])
        local ids = redis.call('LPOP', KEYS[2], most)
        local fetched = {}
        if not ids then return fetched end
        for _, id in ipairs(ids) do
            local data = redis.call('HGET', KEYS[4], id)
            if data then
                local meta = KEYS[5] .. ':' .. id
                redis.call('SADD', KEYS[3], id)
                redis.call('HSET', meta, 'status', 'Running', 'locked_by', ARGV[2], 'locked_at', math.floor(now))
                table.insert(fetched, {id, data, redis.call('HGETALL', meta)})
            end
        end
        return fetched",
    )
});

// In flight, done, dead, scheduled, meta; then id, status, attempt, result, seconds.
static FINISH: LazyLock<Script> = LazyLock::new(|| {
    script(
        "local recorded = 0
        for i = 1, #ARGV, 5 do
            local id, status, attempt, result = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
            if redis.call('SREM', KEYS[1], id) == 1 then
                if status == 'Done' then
                    redis.call('SADD', KEYS[2], id)
                    redis.call('PUBLISH', 'tasks:' .. KEYS[2], id)
                elseif status == 'Failed' then
                    redis.call('ZADD', KEYS[4], now + tonumber(ARGV[i + 4]), id)
                else
                    redis.call('SADD', KEYS[3], id)
                    redis.call('PUBLISH', 'tasks:' .. KEYS[3], id)
                end
                local meta = KEYS[5] .. ':' .. id
                redis.call('HSET', meta, 'result', result, 'status', status, 'attempts', attempt,
                    'done_at', math.floor(now))
                recorded = recorded + 1
            end
        end
        return recorded",
    )
});

// Workers, active, in-flight prefix, dead, meta; seconds, why, channel, queue.
static RECOVER: LazyLock<Script> = LazyLock::new(|| {
    script(
        "local again, dead = 0, 0
        for _, worker in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], 0, now - tonumber(ARGV[1]))) do
            local inflight = KEYS[3] .. ':' .. worker
            for _, id in ipairs(redis.call('SMEMBERS', inflight)) do
                local meta = KEYS[5] .. ':' .. id
                local attempts = redis.call('HINCRBY', meta, 'attempts', 1)
                local most = tonumber(redis.call('HGET', meta, 'max_attempts') or '25')
                redis.call('HDEL', meta, 'locked_by', 'locked_at')
                if attempts >= most then
                    redis.call('SADD', KEYS[4], id)
                    redis.call('HSET', meta, 'status', 'Killed', 'result', ARGV[2], 'done_at', math.floor(now))
                    dead = dead + 1
                else
                    redis.call('RPUSH', KEYS[2], id)
                    redis.call('HSET', meta, 'status', 'Pending')
                    again = again + 1
                end
            end
            redis.call('DEL', inflight)
            redis.call('ZREM', KEYS[1], worker)
        end
        if again > 0 then redis.call('PUBLISH', ARGV[3], ARGV[4]) end
        return {again, dead}",
    )
});

// In flight, active, meta; channel, queue, then ids that are kept.
static GIVE_BACK: LazyLock<Script> = LazyLock::new(|| {
    script(
        "local kept, given = {}, 0
        for i = 3, #ARGV do kept[ARGV[i]] = true end
        for _, id in ipairs(redis.call('SMEMBERS', KEYS[1])) do
            if not kept[id] then
                local meta = KEYS[3] .. ':' .. id
                redis.call('SREM', KEYS[1], id)
                redis.call('LPUSH', KEYS[2], id)
                redis.call('HSET', meta, 'status', 'Pending')
                redis.call('HDEL', meta, 'locked_by', 'locked_at')
                given = given + 1
            end
        end
        if given > 0 then redis.call('PUBLISH', ARGV[1], ARGV[2]) end
        return given",
    )
});

// Active, scheduled, in-flight prefix, workers, done, dead.
static COUNTS: LazyLock<Script> = LazyLock::new(|| {
    script(
        "local running = 0
        for _, worker in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
            running = running + redis.call('SCARD', KEYS[3] .. ':' .. worker)
        end
        return {redis.call('LLEN', KEYS[1]) + redis.call('ZCARD', KEYS[2]), running, redis.call('SCARD', KEYS[5]),
            redis.call('SCARD', KEYS[6])}",
    )
});

// Active, scheduled, workers; seconds of waiting, of being alive.
static WAITING: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if #redis.call('ZRANGEBYSCORE', KEYS[3], now - tonumber(ARGV[2]), '+inf', 'LIMIT', 0, 1) > 0 then
            return 0
        end
        return redis.call('LLEN', KEYS[1]) + redis.call('ZCOUNT', KEYS[2], 0, now - tonumber(ARGV[1]))",
    )
});

// Dead, active, meta; id, channel, queue.
static RETRY: LazyLock<Script> = LazyLock::new(|| {
    script(
        "if redis.call('SREM', KEYS[1], ARGV[1]) == 0 then return 0 end
        redis.call('HSET', KEYS[3] .. ':' .. ARGV[1], 'status', 'Pending', 'attempts', 0)
        redis.call('RPUSH', KEYS[2], ARGV[1])
        redis.call('PUBLISH', ARGV[2], ARGV[3])
        return 1",
    )
});

// Done, data, meta, idempotency prefix; seconds.
static REMOVE_DONE: LazyLock<Script> = LazyLock::new(|| {
    script(
        "local removed = 0
        for _, id in ipairs(redis.call('SMEMBERS', KEYS[1])) do
            local meta = KEYS[3] .. ':' .. id
            if tonumber(redis.call('HGET', meta, 'done_at') or '0') <= now - tonumber(ARGV[1]) then
                local key = redis.call('HGET', meta, 'idempotency_key')
                if key and #key > 0 then redis.call('DEL', KEYS[4] .. ':' .. key) end
                redis.call('SREM', KEYS[1], id)
                redis.call('HDEL', KEYS[2], id)
                redis.call('DEL', meta)
                removed = removed + 1
            end
        end
        return removed",
    )
});

fn failed<E>(what: &'static str) -> impl Fn(E) -> Error
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |error| Error::new(format!("Redis: {what}"), error)
}

fn config(queue: &str) -> Config {
    Config::default().queue(queue)
}

impl Redis {
    pub(crate) async fn connect(url: &str, limit: Duration) -> Result<Self, Error> {
        let client = Client::open(url).map_err(|error| {
            Error::new(format!("can't connect to {}", without_password(url)), error)
        })?;
        Self::new(client, &without_password(url), limit).await
    }

    pub(crate) async fn new(client: Client, whom: &str, limit: Duration) -> Result<Self, Error> {
        let what = format!("can't connect to {whom}");
        let open = async {
            // One by hand first: the manager tries for long before it says why.
            let mut connection = client.get_multiplexed_async_connection().await?;
            redis::cmd("PING")
                .query_async::<()>(&mut connection)
                .await?;
            client.get_connection_manager().await
        };
        let connection = match tokio::time::timeout(limit, open).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(Error::new(what, error)),
            Err(_) => return Err(Error::new(what, format!("no answer within {limit:?}"))),
        };
        Ok(Redis {
            client,
            connection,
            limit,
            warned: OnceLock::new(),
        })
    }

    /// The manager itself waits for long when Redis is away.
    async fn within<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, redis::RedisError>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(self.limit, call).await {
            Ok(result) => result.map_err(failed(what)),
            Err(_) => Err(failed(what)(format!("no answer within {:?}", self.limit))),
        }
    }

    pub(crate) async fn push(&self, queue: &str, task: Task<Vec<u8>>) -> Result<Enqueued, Error> {
        let mut connection = self.connection.clone();
        let config = config(queue);
        let (payload, ctx) = task.take();
        let id = ctx.task_id().expect("given an id when it was made").clone();
        let mut call = PUSH.prepare_invoke();
        call.key(config.job_data_hash())
            .key(config.job_meta_hash())
            .key(config.scheduled_jobs_set())
            .key(config.idempotency_key_set())
            .key(QUEUES)
            .arg(id.to_string())
            .arg(payload)
            .arg(ctx.attempt())
            .arg(ctx.max_attempts().unwrap_or(MAX_ATTEMPTS))
            .arg(ctx.run_at().unwrap_or_default())
            .arg(ctx.idempotency_key().unwrap_or_default())
            .arg(KEY_SECONDS)
            .arg(CHANNEL)
            .arg(queue);
        for (field, value) in ctx.metadata().clone().into_inner() {
            call.arg(field).arg(value);
        }
        let pushed = self
            .within(
                "a job can't be enqueued",
                call.invoke_async::<u64>(&mut connection),
            )
            .await?;
        Ok(match pushed {
            0 => Enqueued::AlreadyThere,
            _ => Enqueued::New(id),
        })
    }

    pub(crate) async fn register(&self, worker: &Registration) -> Result<(), Error> {
        let mut connection = self.connection.clone();
        if self.warned.set(()).is_ok() {
            let settings: Result<Vec<String>, _> = redis::cmd("CONFIG")
                .arg("GET")
                .arg("appendonly")
                .query_async(&mut connection)
                .await;
            if settings.is_ok_and(|settings| settings.get(1).is_some_and(|value| value == "no")) {
                report!(
                    warn,
                    "Redis has `appendonly no`: what was enqueued since its last snapshot is lost when it crashes"
                );
            }
        }
        let config = config(worker.queue);
        self.within(
            "a worker can't be registered",
            REGISTER
                .key(config.workers_set())
                .key(config.worker_metadata_key(&worker.context))
                .key(QUEUES)
                .arg(worker.worker())
                .arg("RedisStorage")
                .arg(worker.context.get_service())
                .arg(worker.queue)
                .invoke_async::<()>(&mut connection),
        )
        .await
    }

    /// None: who was taken for dead is not in the set any more, so coming back is the same as coming.
    pub(crate) async fn heartbeat(&self, _: &[&str]) -> Result<u64, Error> {
        Ok(0)
    }

    pub(crate) async fn recover(
        &self,
        queue: &str,
        dead_for: Duration,
    ) -> Result<Recovered, Error> {
        let mut connection = self.connection.clone();
        let config = config(queue);
        let why = serde_json::json!({ "Err": LOST_TOO_OFTEN }).to_string();
        let (again, dead) = self
            .within(
                "jobs of lost workers can't be taken over",
                RECOVER
                    .key(config.workers_set())
                    .key(config.active_jobs_list())
                    .key(config.inflight_jobs_set())
                    .key(config.dead_jobs_set())
                    .key(config.job_meta_hash())
                    .arg(dead_for.as_secs_f64())
                    .arg(why)
                    .arg(CHANNEL)
                    .arg(queue)
                    .invoke_async::<(u64, u64)>(&mut connection),
            )
            .await?;
        Ok(Recovered { again, dead })
    }

    pub(crate) async fn fetch(
        &self,
        worker: &Registration,
        most: usize,
    ) -> Result<Vec<Task<Vec<u8>>>, Error> {
        let mut connection = self.connection.clone();
        let config = config(worker.queue);
        type Fetched = (String, Vec<u8>, Vec<(String, String)>);
        let fetched = self
            .within(
                "jobs can't be fetched",
                FETCH
                    .key(config.workers_set())
                    .key(config.active_jobs_list())
                    .key(config.inflight_set_for(&worker.context))
                    .key(config.job_data_hash())
                    .key(config.job_meta_hash())
                    .key(config.scheduled_jobs_set())
                    .arg(most)
                    .arg(worker.worker())
                    .invoke_async::<Vec<Fetched>>(&mut connection),
            )
            .await?;
        Ok(fetched
            .into_iter()
            .map(|(id, data, fields)| {
                let mut attempts = 0;
                let mut max_attempts = MAX_ATTEMPTS;
                let mut metadata = std::collections::HashMap::new();
                for (key, value) in fields {
                    match key.as_str() {
                        "attempts" => attempts = value.parse().unwrap_or_default(),
                        "max_attempts" => max_attempts = value.parse().unwrap_or(MAX_ATTEMPTS),
                        "status" | "result" | "done_at" | "locked_by" | "locked_at"
                        | "idempotency_key" => {}
                        _ => {
                            metadata.insert(key, value);
                        }
                    }
                }
                let id = match ulid::Ulid::from_string(&id) {
                    Ok(id) => TaskId::from_ulid(id),
                    Err(_) => TaskId::from_string(id),
                };
                TaskBuilder::new(data)
                    .task_id(id)
                    .attempt(attempts)
                    .max_attempts(max_attempts)
                    .with_metadata(MetadataStore::from_map(metadata))
                    .build()
            })
            .collect())
    }

    pub(crate) async fn finish(
        &self,
        worker: &Registration,
        ended: &[Ended],
    ) -> Result<u64, Error> {
        let mut connection = self.connection.clone();
        let config = config(worker.queue);
        let mut call = FINISH.prepare_invoke();
        call.key(config.inflight_set_for(&worker.context))
            .key(config.done_jobs_set())
            .key(config.dead_jobs_set())
            .key(config.scheduled_jobs_set())
            .key(config.job_meta_hash());
        for ended in ended {
            let (status, result, after) = match &ended.verdict {
                Verdict::Done(value) => {
                    ("Done", serde_json::json!({ "Ok": value }), Duration::ZERO)
                }
                Verdict::Again { error, after } => {
                    ("Failed", serde_json::json!({ "Err": error }), *after)
                }
                Verdict::Dead { error } => (
                    "Killed",
                    serde_json::json!({ "Err": error }),
                    Duration::ZERO,
                ),
            };
            call.arg(ended.id.to_string())
                .arg(status)
                .arg(ended.attempt)
                .arg(result.to_string())
                .arg(after.as_secs_f64());
        }
        self.within(
            "results can't be recorded",
            call.invoke_async::<u64>(&mut connection),
        )
        .await
    }

    pub(crate) async fn give_back(
        &self,
        worker: &Registration,
        but: &[String],
    ) -> Result<u64, Error> {
        let mut connection = self.connection.clone();
        let config = config(worker.queue);
        self.within(
            "jobs can't be given back",
            GIVE_BACK
                .key(config.inflight_set_for(&worker.context))
                .key(config.active_jobs_list())
                .key(config.job_meta_hash())
                .arg(CHANNEL)
                .arg(worker.queue)
                .arg(but)
                .invoke_async::<u64>(&mut connection),
        )
        .await
    }

    pub(crate) async fn leave(&self, worker: &Registration) -> Result<(), Error> {
        let mut connection = self.connection.clone();
        let config = config(worker.queue);
        let mut pipe = redis::pipe();
        pipe.zrem(config.workers_set(), worker.worker())
            .ignore()
            .del(config.worker_metadata_key(&worker.context))
            .ignore();
        self.within(
            "a worker can't be signed off",
            pipe.query_async::<()>(&mut connection),
        )
        .await
    }

    pub(crate) async fn listen(
        &self,
        _: &[&'static str],
        _: tokio::sync::watch::Receiver<u64>,
        wake: &(dyn Fn(Option<&str>) + Send + Sync),
    ) -> Result<Infallible, Error> {
        let what = "notifications can't be received";
        let mut listener = self.within(what, self.client.get_async_pubsub()).await?;
        self.within(what, listener.subscribe(CHANNEL)).await?;
        // What came before is not told.
        wake(None);
        let mut told = listener.into_on_message();
        while let Some(message) = told.next().await {
            match message.get_payload::<String>() {
                Ok(queue) => wake(Some(&queue)),
                Err(_) => wake(None),
            }
        }
        Err(failed(what)("the connection was closed"))
    }

    pub(crate) async fn without_handler(
        &self,
        waited: Duration,
        alive: Duration,
    ) -> Result<Vec<(String, u64)>, Error> {
        let what = "waiting jobs can't be counted";
        let mut connection = self.connection.clone();
        let mut queues: Vec<String> = self
            .within(
                what,
                redis::cmd("SMEMBERS")
                    .arg(QUEUES)
                    .query_async(&mut connection),
            )
            .await?;
        queues.sort();
        let mut waiting = Vec::new();
        for queue in queues {
            let config = config(&queue);
            let count = self
                .within(
                    what,
                    WAITING
                        .key(config.active_jobs_list())
                        .key(config.scheduled_jobs_set())
                        .key(config.workers_set())
                        .arg(waited.as_secs_f64())
                        .arg(alive.as_secs_f64())
                        .invoke_async::<u64>(&mut connection),
                )
                .await?;
            if count > 0 {
                waiting.push((queue, count));
            }
        }
        Ok(waiting)
    }

    pub(crate) async fn counts(&self, queue: &str) -> Result<Counts, Error> {
        let mut connection = self.connection.clone();
        let config = config(queue);
        let (pending, running, done, dead) = self
            .within(
                "jobs can't be counted",
                COUNTS
                    .key(config.active_jobs_list())
                    .key(config.scheduled_jobs_set())
                    .key(config.inflight_jobs_set())
                    .key(config.workers_set())
                    .key(config.done_jobs_set())
                    .key(config.dead_jobs_set())
                    .invoke_async::<(u64, u64, u64, u64)>(&mut connection),
            )
            .await?;
        Ok(Counts {
            pending,
            running,
            done,
            dead,
        })
    }

    pub(crate) async fn dead(&self, queue: &str, most: u32) -> Result<Vec<Dead>, Error> {
        let what = "dead letters can't be read";
        let mut connection = self.connection.clone();
        let config = config(queue);
        let ids: Vec<String> = self
            .within(
                what,
                redis::cmd("SMEMBERS")
                    .arg(config.dead_jobs_set())
                    .query_async(&mut connection),
            )
            .await?;
        let mut dead = Vec::new();
        for id in ids.into_iter().take(most as usize) {
            let (result, attempts): (Option<String>, Option<usize>) = self
                .within(
                    what,
                    redis::cmd("HMGET")
                        .arg(format!("{}:{id}", config.job_meta_hash()))
                        .arg("result")
                        .arg("attempts")
                        .query_async(&mut connection),
                )
                .await?;
            dead.push(Dead {
                id,
                attempts: attempts.unwrap_or_default(),
                error: error_of(
                    result.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))),
                ),
            });
        }
        Ok(dead)
    }

    pub(crate) async fn retry(&self, queue: &str, id: &str) -> Result<bool, Error> {
        let mut connection = self.connection.clone();
        let config = config(queue);
        let retried = self
            .within(
                "a dead letter can't be retried",
                RETRY
                    .key(config.dead_jobs_set())
                    .key(config.active_jobs_list())
                    .key(config.job_meta_hash())
                    .arg(id)
                    .arg(CHANNEL)
                    .arg(queue)
                    .invoke_async::<u64>(&mut connection),
            )
            .await?;
        Ok(retried > 0)
    }

    pub(crate) async fn remove_done(&self, queue: &str, older: Duration) -> Result<u64, Error> {
        let mut connection = self.connection.clone();
        let config = config(queue);
        self.within(
            "what is done can't be removed",
            REMOVE_DONE
                .key(config.done_jobs_set())
                .key(config.job_data_hash())
                .key(config.job_meta_hash())
                .key(config.idempotency_key_set())
                .arg(older.as_secs_f64())
                .invoke_async::<u64>(&mut connection),
        )
        .await
    }
}
