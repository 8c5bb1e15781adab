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
    // Twice the pixels of what the README has room for.
    browser.resize(840, 1200, 2.0, false).await;
    browser.run("const user = document.getElementById('user'); user.value = 'bob'; user.form.requestSubmit()").await;
    browser
        .until("document.getElementById('said').textContent === 'You are signed in as bob.'")
        .await;
    for (variant, route) in [("without", "/without/posts"), ("with", "/posts")] {
        browser
            .click(&format!("[aria-label='New post, {variant} after']"))
            .await;
        browser.until(&is_over(route)).await;
    }
    // As it is when nobody points at anything.
    browser
        .run("document.activeElement.blur(); document.querySelector('.table').hidden = true; scrollTo(0, 0)")
        .await;
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await;
        shoot(&browser, &format!("shop-{scheme}")).await;
    }
    browser.close().await;
}

/// The section of the chart alone.
async fn shoot(browser: &Browser, name: &str) {
    let question = "const box = document.getElementById('chart-title').parentElement.getBoundingClientRect(); \
                    return { x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height, scale: 1 }";
    let clip = browser.run(question).await;
    let options = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
    let shot = browser.devtools("Page.captureScreenshot", options).await;
    let shot = shot["data"].as_str().expect("a picture");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/{name}.png"));
    fs::write(&path, BASE64_STANDARD.decode(shot).expect("base64")).expect("a file in docs");
    println!("docs/{name}.png");
}
