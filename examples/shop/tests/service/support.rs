//! A shop with a database of its own, and a client.

use std::{collections::BTreeMap, time::Duration};

use reqwest::{Client, RequestBuilder, Response, StatusCode, header::SET_COOKIE};
use rusqlite::{Connection, types::FromSql};
use serde_json::Value;
use shop::{Config, Feed, Shop, neighbours::Received};
use tempfile::TempDir;

pub(crate) use crate::program::soon;

/// Both handlers of a pattern do the same.
pub(crate) const BOTH: [&str; 2] = ["", "/without"];

pub(crate) struct Service {
    pub(crate) shop: Shop,
    pub(crate) client: Client,
    /// Sent with each request.
    cookie: Option<String>,
    folder: TempDir,
}

impl Service {
    /// Its neighbours take no time.
    pub(crate) async fn start() -> Service {
        Service::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Service {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config {
            port: 0,
            database: Some(folder.path().join("shop.db")),
            neighbour_delay: Duration::ZERO,
            ..Config::default()
        };
        change(&mut config);
        Service {
            shop: Shop::start(&config, Feed::default()).await.unwrap(),
            client: client(),
            cookie: None,
            folder,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.shop.address)
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.with_cookie(self.client.get(self.url(path)))
    }

    pub(crate) fn post(&self, path: &str, form: &[(&str, &str)]) -> RequestBuilder {
        self.with_cookie(self.client.post(self.url(path)).form(form))
    }

    pub(crate) fn with_cookie(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        }
    }

    pub(crate) async fn sign_in(&mut self, user: &str) {
        let response = self.post("/login", &[("user", user)]).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let cookie = response.headers()[SET_COOKIE].to_str().unwrap();
        self.cookie = cookie.split(';').next().map(Into::into);
    }

    /// Sends a form, and waits for what was deferred.
    pub(crate) async fn send(&self, path: &str, form: &[(&str, &str)]) -> (StatusCode, Value) {
        let answer = read(self.post(path, form)).await;
        self.drained().await;
        answer
    }

    /// All that was deferred until now has ended.
    pub(crate) async fn drained(&self) {
        soon("the end of all tasks", self.shop.runner.drain()).await;
    }

    /// All jobs are done.
    pub(crate) async fn delivered(&self) {
        let done = "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM Jobs WHERE status <> 'Done')";
        self.until("the end of all jobs", done).await;
    }

    /// Asks the database until the query has a row.
    pub(crate) async fn until(&self, what: &str, query: &str) {
        let asked = async {
            let database = self.database();
            while !database.prepare(query).unwrap().exists(()).unwrap() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon(what, asked).await;
    }

    pub(crate) fn received(&self) -> Received {
        self.shop.neighbours.received()
    }

    /// The first column of all rows, read by the database's own means.
    pub(crate) fn rows<T: FromSql>(&self, query: &str) -> Vec<T> {
        let database = self.database();
        let mut query = database.prepare(query).unwrap();
        let rows = query.query_map((), |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    pub(crate) fn database(&self) -> Connection {
        Connection::open(self.folder.path().join("shop.db")).unwrap()
    }
}

pub(crate) fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

pub(crate) async fn read(request: RequestBuilder) -> (StatusCode, Value) {
    let response = soon("an answer", request.send()).await.unwrap();
    let status = response.status();
    (status, response.json().await.unwrap())
}

/// The page's stream of events.
pub(crate) struct Events {
    response: Response,
    read: String,
    /// By their ids, as they were told last.
    pub(crate) requests: BTreeMap<u64, Value>,
    pub(crate) lines: Vec<String>,
    pub(crate) phase: String,
    pub(crate) account: Value,
    /// The newest first.
    pub(crate) jobs: Value,
}

impl Events {
    pub(crate) async fn watch(client: &Client, url: String) -> Events {
        let response = client.get(url).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events {
            response,
            read: String::new(),
            requests: BTreeMap::new(),
            lines: Vec::new(),
            phase: String::new(),
            account: Value::Null,
            jobs: Value::Null,
        }
    }

    /// Reads on until `come` says so.
    pub(crate) async fn until(&mut self, what: &str, come: impl Fn(&Events) -> bool) {
        while !come(self) {
            let more = soon(what, self.next()).await;
            assert!(more, "the stream has ended before this has come: {what}");
        }
    }

    /// Reads one more event. `false` at the end of the stream.
    pub(crate) async fn next(&mut self) -> bool {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let data = event.strip_prefix("data: ").map(serde_json::from_str);
                let rest = rest.to_owned();
                // Without data it is a comment that keeps the connection alive.
                let news: Option<Value> = data.transpose().unwrap();
                self.read = rest;
                if let Some(news) = news {
                    self.take_in(&news);
                    return true;
                }
            } else {
                match self.response.chunk().await.unwrap() {
                    Some(chunk) => self.read += std::str::from_utf8(&chunk).unwrap(),
                    None => return false,
                }
            }
        }
    }

    fn take_in(&mut self, news: &Value) {
        for request in news["requests"].as_array().unwrap() {
            let id = request["id"].as_u64().unwrap();
            self.requests.insert(id, request.clone());
        }
        let lines = news["lines"].as_array().unwrap();
        self.lines
            .extend(lines.iter().map(|line| line.as_str().unwrap().into()));
        self.phase = news["phase"].as_str().unwrap().into();
        self.account = news["account"].clone();
        self.jobs = news["jobs"].clone();
    }

    pub(crate) fn request(&self, path: &str) -> Option<&Value> {
        self.requests
            .values()
            .rev()
            .find(|request| request["path"] == path)
    }

    /// Whether a request to this path was answered and all its tasks have ended.
    pub(crate) fn is_over(&self, path: &str) -> bool {
        self.request(path).is_some_and(|request| {
            let tasks = request["tasks"].as_array().unwrap();
            !request["answered"].is_null() && tasks.iter().all(|task| !task["ended"].is_null())
        })
    }
}
