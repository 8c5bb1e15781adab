//! The pictures of the README, written to `docs`. `screenshots.sh` runs this.

#[path = "../tests/browser/driver.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod driver;

use std::{fs, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;
use shop::{Config, Feed, Shop};

use crate::driver::{Browser, is_over};

#[tokio::main]
async fn main() {
    let feed = Feed::default();
    shop::log::start(feed.clone());
    let config = Config {
        port: 0,
        ..Config::default()
    };
    let shop = Shop::start(&config, feed).await.expect("a shop");
    let browser = Browser::open(&format!("http://{}", shop.address)).await;
    browser
        .devtools("Emulation.setScrollbarsHidden", json!({ "hidden": true }))
        .await;
    browser.resize(1200, 860, 1.0, false).await;
    browser.run("const user = document.getElementById('user'); user.value = 'bob'; user.form.requestSubmit()").await;
    browser
        .until("document.getElementById('said').textContent === 'You are signed in as bob.'")
        .await;
    for (name, path) in [("Shipment", "/shipments"), ("New post", "/posts")] {
        for (variant, route) in [
            ("without", format!("/without{path}")),
            ("with", path.to_owned()),
        ] {
            browser
                .click(&format!("[aria-label='{name}, {variant} after']"))
                .await;
            browser.until(&is_over(&route)).await;
        }
    }
    // As it is when nobody points at anything.
    browser
        .run("document.activeElement.blur(); scrollTo(0, 0)")
        .await;
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await;
        shoot(&browser, &format!("shop-{scheme}")).await;
    }
    browser.prefer("light").await;
    browser.resize(390, 844, 2.0, true).await;
    browser
        .until("document.querySelectorAll('.ticks span').length < 6")
        .await;
    browser
        .run("document.getElementById('chart-title').scrollIntoView(); scrollBy(0, -24)")
        .await;
    shoot(&browser, "shop-phone").await;
    browser.close().await;
}

async fn shoot(browser: &Browser, name: &str) {
    let shot = browser
        .devtools("Page.captureScreenshot", json!({ "format": "png" }))
        .await;
    let shot = shot["data"].as_str().expect("a picture");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/{name}.png"));
    fs::write(&path, BASE64_STANDARD.decode(shot).expect("base64")).expect("a file in docs");
    println!("docs/{name}.png");
}
