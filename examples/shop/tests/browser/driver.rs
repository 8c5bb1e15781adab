//! A headless Chromium, driven over WebDriver.

use std::{path::Path, process::Stdio, str::FromStr};

use fantoccini::{Client, ClientBuilder, Locator, wd::WebDriverCompatibleCommand};
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::{Method, Url};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
};

/// The browser and its driver. [`close`](Browser::close) ends both; dropped, the driver is killed.
pub(crate) struct Browser {
    client: Client,
    driver: Child,
    // Open as long as the driver writes to it.
    _output: BufReader<ChildStdout>,
    // Of the browser's profile and whatever else both leave behind.
    _folder: TempDir,
}

impl Browser {
    /// Debian's packages `chromium` and `chromium-driver` have what this needs.
    pub(crate) async fn open(url: &str) -> Browser {
        let mut attempts = 0;
        let folder = tempfile::tempdir().expect("a folder");
        let (driver, output, port) = loop {
            if let Some(started) = start_driver(folder.path()).await {
                break started;
            }
            attempts += 1;
            assert!(attempts < 10, "chromedriver does not start");
        };
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-default-apps",
            "--disable-dev-shm-usage",
            "--disable-sync",
            "--no-first-run",
            "--no-proxy-server",
            "--window-size=1280,900",
        ];
        let capabilities = json!({
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "script": 60_000 },
        });
        let Value::Object(capabilities) = capabilities else {
            unreachable!("an object was written")
        };
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("a browser");
        let browser = Browser {
            client,
            driver,
            _output: output,
            _folder: folder,
        };
        browser.client.goto(url).await.expect("the page");
        browser
    }

    pub(crate) async fn close(mut self) {
        self.client.close().await.expect("the end of the browser");
        self.driver.kill().await.expect("the end of its driver");
    }

    /// What `script` returns.
    pub(crate) async fn run(&self, script: &str) -> Value {
        let result = self.client.execute(script, Vec::new()).await;
        result.expect("a script that runs")
    }

    /// Looks again at each change of the page, and when a picture is loaded, until `condition` holds.
    pub(crate) async fn until(&self, condition: &str) {
        let script = format!(
            "const done = arguments[0];
             const look = () => {{ if ({condition}) {{ observer.disconnect(); done(null); }} }};
             const observer = new MutationObserver(look);
             observer.observe(document, {{ subtree: true, childList: true, attributes: true, characterData: true }});
             document.addEventListener('load', look, true);
             look();"
        );
        let waited = self.client.execute_async(&script, Vec::new()).await;
        waited.unwrap_or_else(|error| panic!("this has not come: {condition}: {error}"));
    }

    pub(crate) async fn click(&self, selector: &str) {
        let element = self.client.find(Locator::Css(selector)).await;
        element.expect(selector).click().await.expect(selector);
    }

    /// Keys for what has the focus.
    pub(crate) async fn press(&self, keys: &str) {
        let focused = self
            .client
            .active_element()
            .await
            .expect("something has the focus");
        focused.send_keys(keys).await.expect("keys");
    }

    /// What the browser itself has complained of: scripts that failed, policies that were broken.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.client.issue_cmd(Chrome {
            path: "se/log",
            body: json!({ "type": "browser" }),
        });
        let log = log.await.expect("the browser's log");
        let entries = log.as_array().expect("a list").iter();
        entries
            .filter(|entry| entry["level"] == "SEVERE")
            .map(|entry| entry["message"].to_string())
            .collect()
    }

    /// `light` or `dark`.
    pub(crate) async fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        )
        .await;
    }

    /// In CSS pixels.
    pub(crate) async fn resize(&self, width: u32, height: u32, scale: f64, phone: bool) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)
            .await;
    }

    pub(crate) async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let answer = self.client.issue_cmd(Chrome {
            path: "goog/cdp/execute",
            body: json!({ "cmd": command, "params": parameters }),
        });
        answer.await.expect(command)
    }
}

/// A condition: the newest request to this path is answered, and all its tasks have ended, so that each has a bar and none
/// grows; and the page takes the next click.
pub(crate) fn is_over(path: &str) -> String {
    format!(
        "document.querySelector('[aria-busy=true]') === null && \
         [...document.querySelector(\"#chart [data-path='{path}']\")?.querySelectorAll('.row') ?? ['none']] \
         .every(row => row !== 'none' && row.querySelector('.bar:not(.running)'))"
    )
}

/// `None` if it has ended at once: it takes a port that is free for IPv4, and may then find it taken for IPv6.
async fn start_driver(folder: &Path) -> Option<(Child, BufReader<ChildStdout>, String)> {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        .env("TMPDIR", folder)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("`chromedriver` is there: apt-get install chromium chromium-driver");
    let mut output = BufReader::new(driver.stdout.take().expect("it is piped"));
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).await.expect("lines") == 0 {
            return None;
        }
        if let Some((_, port)) = line.trim().split_once("successfully on port ") {
            let port = port.trim_end_matches('.').to_owned();
            return Some((driver, output, port));
        }
    }
}

/// What Chromium's driver can do besides what WebDriver asks for.
#[derive(Debug)]
struct Chrome {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Chrome {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, <Url as FromStr>::Err> {
        base.join(&format!(
            "session/{}/{}",
            session.unwrap_or_default(),
            self.path
        ))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}
