//! What may be set from outside. Everything has a default that needs nothing installed.

use std::{env, fmt, path::PathBuf, time::Duration};

use reqwest::Url;

/// How the shop is started. [`Config::from_env`] reads it from the environment.
#[derive(Clone, Debug)]
pub struct Config {
    /// `PORT`, on 127.0.0.1. Default: 3000. With 0 the system chooses one.
    pub port: u16,
    /// `DATABASE_URL`: `sqlite:shop.db`, or a path. Default: a file in a temporary folder.
    pub database: Option<PathBuf>,
    /// `SMTP_URL`: `smtp://host:port`. Default: a server that the shop starts.
    pub smtp: Option<Url>,
    /// `CDN_URL`: where `PURGE /profiles/7` is sent. Default: one of the shop's neighbours.
    pub cdn: Option<Url>,
    /// `ANALYTICS_URL`: where events are posted. Default: one of the shop's neighbours.
    pub analytics: Option<Url>,
    /// `WEBHOOK_URL`: whom the shop tells of shipments. Default: one of the shop's neighbours.
    pub webhook: Option<Url>,
    /// `WEBHOOK_SECRET`: signs the deliveries.
    pub webhook_secret: String,
    /// `NEIGHBOUR_MS`: how long each neighbour takes to answer. Default: 120 ms, as if it were far away.
    pub neighbour_delay: Duration,
    /// `SHUTDOWN_MS`: how long a stop waits for requests, then for deferred work, then for jobs. Default: 10 s for each.
    pub shutdown_limit: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            port: 3000,
            database: None,
            smtp: None,
            cdn: None,
            analytics: None,
            webhook: None,
            webhook_secret: "known to the shop and its neighbour".into(),
            neighbour_delay: Duration::from_millis(120),
            shutdown_limit: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// The defaults, and what the environment says otherwise.
    pub fn from_env() -> Result<Config, ConfigError> {
        let mut config = Config::default();
        if let Some(port) = variable("PORT") {
            config.port = port.parse().map_err(|_| ConfigError {
                variable: "PORT",
                wanted: "a number up to 65535",
            })?;
        }
        if let Some(url) = variable("DATABASE_URL") {
            let path = url.strip_prefix("sqlite:").unwrap_or(&url);
            // `sqlite:///var/shop.db` is how others write an absolute path.
            config.database = Some(path.strip_prefix("//").unwrap_or(path).into());
        }
        config.smtp = url("SMTP_URL", "smtp")?;
        config.cdn = url("CDN_URL", "http")?;
        config.analytics = url("ANALYTICS_URL", "http")?;
        config.webhook = url("WEBHOOK_URL", "http")?;
        if let Some(secret) = variable("WEBHOOK_SECRET") {
            config.webhook_secret = secret;
        }
        if let Some(delay) = milliseconds("NEIGHBOUR_MS")? {
            config.neighbour_delay = delay;
        }
        if let Some(limit) = milliseconds("SHUTDOWN_MS")? {
            config.shutdown_limit = limit;
        }
        Ok(config)
    }
}

fn variable(name: &'static str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Without TLS: the README says what to turn on for more.
fn url(name: &'static str, scheme: &'static str) -> Result<Option<Url>, ConfigError> {
    let Some(value) = variable(name) else {
        return Ok(None);
    };
    let url = Url::parse(&value).ok();
    let url = url.filter(|url| url.scheme() == scheme && url.host().is_some());
    let wanted = match scheme {
        "smtp" => "a URL like smtp://127.0.0.1:2525",
        _ => "a URL like http://127.0.0.1:8080/path",
    };
    url.map(Some).ok_or(ConfigError {
        variable: name,
        wanted,
    })
}

fn milliseconds(name: &'static str) -> Result<Option<Duration>, ConfigError> {
    let parsed = variable(name).map(|value| value.parse().map(Duration::from_millis));
    parsed.transpose().map_err(|_| ConfigError {
        variable: name,
        wanted: "a number of milliseconds",
    })
}

/// A variable of the environment that makes no sense.
#[derive(Debug)]
pub struct ConfigError {
    variable: &'static str,
    wanted: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has to be {}", self.variable, self.wanted)
    }
}

impl std::error::Error for ConfigError {}
