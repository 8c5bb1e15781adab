//! The page, in a browser.

// One stops the program with a signal.
#![cfg(unix)]

mod driver;
#[path = "../support/program.rs"]
mod program;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    driver::{Browser, is_over},
    program::{Collector, Program},
};

/// A bar of the chart.
#[derive(Debug)]
struct Bar {
    name: String,
    /// When it begins and ends, in milliseconds since the request had come.
    began: f64,
    ended: f64,
    /// Its edges in pixels, and where they belong by the ticks of the axis.
    left: f64,
    right: f64,
    expected_left: f64,
    expected_right: f64,
}

/// Those of the newest request to this path.
async fn bars(browser: &Browser, path: &str) -> Vec<Bar> {
    let script = format!(
        "const rows = document.querySelector(\"#chart [data-path='{path}']\").querySelectorAll('.row');
         const ticks = [...document.querySelectorAll('.ticks span')];
         const at = tick => {{ const {{ left, right }} = tick.getBoundingClientRect(); return (left + right) / 2; }};
         const [first, last] = [ticks[0], ticks.at(-1)];
         const place = time => at(first) + (at(last) - at(first)) * time / Number(last.textContent);
         return [...rows].map(row => {{
             const bar = row.querySelector('.bar');
             const [began, ended] = [Number(bar.dataset.began), Number(bar.dataset.ended)];
             const {{ left, right }} = bar.getBoundingClientRect();
             return [row.firstChild.textContent, began, ended, left, right, place(began), place(ended)];
         }});"
    );
    let Value::Array(rows) = browser.run(&script).await else {
        panic!("no rows")
    };
    let bars = rows.iter().map(|row| {
        let number = |index: usize| row[index].as_f64().unwrap();
        Bar {
            name: row[0].as_str().unwrap().to_owned(),
            began: number(1),
            ended: number(2),
            left: number(3),
            right: number(4),
            expected_left: number(5),
            expected_right: number(6),
        }
    });
    bars.collect()
}

async fn text(browser: &Browser, selector: &str) -> String {
    let script = format!("return document.querySelector('{selector}').textContent");
    browser.run(&script).await.as_str().unwrap().to_owned()
}

async fn sign_in(browser: &Browser, user: &str) {
    browser
        .run(&format!(
            "const user = document.getElementById('user'); user.value = '{user}'; user.form.requestSubmit()"
        ))
        .await;
    let said =
        format!("document.getElementById('said').textContent === 'You are signed in as {user}.'");
    browser.until(&said).await;
}

#[tokio::test]
async fn the_tasks_bars_begin_where_the_responses_bar_ends() {
    let program = Program::start(&[("NEIGHBOUR_MS", "120")]).await;
    let browser = Browser::open(&program.address).await;
    browser
        .click("[aria-label='Purchase, without after']")
        .await;
    browser.until(&is_over("/without/purchase")).await;
    browser.click("[aria-label='Purchase, with after']").await;
    browser.until(&is_over("/purchase")).await;

    let with = bars(&browser, "/purchase").await;
    let without = bars(&browser, "/without/purchase").await;
    for bar in with.iter().chain(&without) {
        // The browser rounds; and a bar of nearly no time is three pixels wide all the same.
        assert!((bar.left - bar.expected_left).abs() <= 1.0, "{bar:?}");
        assert!(
            (-1.0..=4.0).contains(&(bar.right - bar.expected_right)),
            "{bar:?}"
        );
    }
    let names = |bars: &[Bar]| bars.iter().map(|bar| bar.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&with), ["response", "analytics"]);
    assert_eq!(names(&without), ["response", "analytics"]);
    assert_eq!((with[0].began, without[0].began), (0.0, 0.0));
    assert!(
        with[1].began >= with[0].ended && with[1].ended > with[1].began,
        "{with:?}"
    );
    assert!(
        without[1].ended <= without[0].ended && without[1].ended > without[1].began,
        "{without:?}"
    );

    // The neighbour takes 120 ms, so that much was waited for at least.
    let waited = text(&browser, "#without").await;
    let waited: f64 = waited.strip_suffix(" ms").unwrap().parse().unwrap();
    assert!(waited >= 119.0, "{waited}");
    assert!(text(&browser, "#with").await.ends_with(" ms"));
    assert!(text(&browser, "#less").await.ends_with(" ms"));
    let said = text(&browser, "#said").await;
    assert!(
        said.starts_with("Purchase, with after: You have bought tea: order 3. You waited "),
        "{said}"
    );
    // The same for whoever sees no bars, in words and as a table.
    let words = text(&browser, "#chart [data-path=\"/purchase\"] p").await;
    assert!(
        words.starts_with("response from 0.0 ms to ") && words.contains("; analytics from "),
        "{words}"
    );
    assert_eq!(
        browser
            .run("return document.querySelectorAll('#rows tr').length")
            .await,
        4
    );
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn every_button_sends_what_it_says() {
    let program = Program::start(&[]).await;
    let browser = Browser::open(&program.address).await;
    sign_in(&browser, "ada").await;
    let patterns = [
        ("Purchase", "/purchase", "You have bought tea"),
        ("New post", "/posts", "“New tea” is published"),
        ("Shipment", "/shipments", "is on its way."),
        ("Picture", "/pictures", "Your picture is saved"),
        ("Profile", "/profile", "Your profile is saved."),
        ("Delete a user", "/users/delete", "guest-"),
        ("New product", "/products", "There is mug now"),
        ("Report", "/orders.csv", "The report has "),
    ];
    let all = browser
        .run("return document.querySelectorAll('form.pattern').length")
        .await;
    assert_eq!(all, patterns.len());
    for (name, path, message) in patterns {
        for (variant, route) in [
            ("without", format!("/without{path}")),
            ("with", path.to_owned()),
        ] {
            browser
                .click(&format!("[aria-label='{name}, {variant} after']"))
                .await;
            browser.until(&is_over(&route)).await;
            let said = format!("{name}, {variant} after: ");
            let condition = format!(
                "document.getElementById('said').textContent.startsWith('{said}') \
                 && document.getElementById('said').textContent.includes('{message}') \
                 && !document.getElementById('said').classList.contains('wrong')"
            );
            browser.until(&condition).await;
        }
    }
    // Made after the answer, and shown then.
    browser.click("[data-name=Picture] summary").await;
    browser
        .until("document.querySelector('#thumbnail img')?.complete")
        .await;
    assert_eq!(
        browser
            .run("return document.querySelector('#thumbnail img').naturalWidth")
            .await,
        160
    );
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn what_visitors_write_is_text_on_the_page() {
    let program = Program::start(&[]).await;
    let browser = Browser::open(&program.address).await;
    browser.run("window.harmed = false").await;
    let attack = r#"<img src=x onerror="window.harmed = true">"#;
    // Nobody is signed in, so this is refused; and it is in the audit log, whose line is shown.
    browser
        .run(&format!(
            "document.querySelector('[name=target]').value = '{attack}'"
        ))
        .await;
    browser
        .click("[aria-label='Delete a user, with after']")
        .await;
    browser
        .until("document.getElementById('log').textContent.includes('audit: deletion of \"<img src=x')")
        .await;
    browser
        .until("document.getElementById('said').textContent.includes('refused. Sign in first.')")
        .await;
    browser
        .run(&format!(
            "document.querySelector('[name=item]').value = '{attack}'"
        ))
        .await;
    browser.click("[aria-label='Purchase, with after']").await;
    browser
        .until("document.getElementById('said').textContent.includes('There is no product called <img src=x')")
        .await;
    assert_eq!(
        browser
            .run("return document.querySelectorAll('img').length")
            .await,
        0
    );
    assert_eq!(browser.run("return window.harmed").await, false);
    browser.close().await;
}

#[tokio::test]
async fn the_keyboard_is_enough() {
    let program = Program::start(&[]).await;
    let browser = Browser::open(&program.address).await;
    let mut reached = Vec::new();
    let focused = "const at = document.activeElement; const { outlineStyle, outlineWidth } = getComputedStyle(at); \
                   return [at.getAttribute('aria-label') ?? at.id, `${outlineStyle} ${outlineWidth}`]";
    while reached
        .last()
        .is_none_or(|last| last != "Purchase, with after")
    {
        browser.press("\u{e004}").await;
        let at = browser.run(focused).await;
        assert_eq!(at[1], "solid 3px", "the focus on {} is seen", at[0]);
        reached.push(at[0].as_str().unwrap().to_owned());
        assert!(reached.len() < 20, "{reached:?}");
    }
    assert_eq!(reached[1], "user");
    browser.press("\u{e007}").await;
    browser.until(&is_over("/purchase")).await;
    // Where it was: nothing takes the focus away.
    assert_eq!(browser.run(focused).await[0], "Purchase, with after");
    browser.close().await;
}

/// Elements whose text has less contrast than WCAG's level AA asks for.
const FAINT: &str = r#"
    const parse = colour => colour.match(/[\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const ground = element => {
        for (; element; element = element.parentElement) {
            const colour = parse(getComputedStyle(element).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        throw new Error("no ground");
    };
    const own = element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim() !== "");
    const seen = [...document.body.querySelectorAll("*")].filter(element => own(element) && element.getClientRects().length);
    if (seen.length < 60) throw new Error(`only ${seen.length} texts`);
    return seen.filter(element => {
        const [a, b] = [luminance(parse(getComputedStyle(element).color)), luminance(ground(element))];
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5;
    }).map(element => element.outerHTML.slice(0, 80));
"#;

#[tokio::test]
async fn the_page_can_be_read_in_the_dark_and_on_a_phone() {
    let program = Program::start(&[]).await;
    let browser = Browser::open(&program.address).await;
    sign_in(&browser, "bob").await;
    for name in ["New post, without after", "Profile, with after"] {
        browser.click(&format!("[aria-label='{name}']")).await;
    }
    browser.until(&is_over("/without/posts")).await;
    browser.until(&is_over("/profile")).await;
    browser
        .run("for (const part of document.querySelectorAll('details')) part.open = true")
        .await;
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await;
        for (width, height, phone) in [(1280, 900, false), (360, 740, true)] {
            browser.resize(width, height, 1.0, phone).await;
            assert_eq!(
                browser.run(FAINT).await,
                Value::Array(Vec::new()),
                "{scheme} {width}"
            );
            let overflow = "return document.documentElement.scrollWidth - innerWidth";
            assert!(
                browser.run(overflow).await.as_f64().unwrap() <= 0.0,
                "{width}"
            );
        }
        grounds.push(
            browser
                .run("return getComputedStyle(document.body).backgroundColor")
                .await,
        );
    }
    assert_ne!(grounds[0], grounds[1]);

    // As a screen reader is told: everything that takes input has a name.
    let tree = browser
        .devtools("Accessibility.getFullAXTree", serde_json::json!({}))
        .await;
    let nodes = tree["nodes"].as_array().unwrap().iter();
    let roles = [
        "button",
        "textbox",
        "combobox",
        "searchbox",
        "spinbutton",
        "link",
        "region",
        "table",
        "list",
    ];
    let told: Vec<_> = nodes
        .filter(|node| roles.iter().any(|role| node["role"]["value"] == *role))
        .filter(|node| node["ignored"] == false)
        .map(|node| {
            (
                &node["role"]["value"],
                node["name"]["value"].as_str().unwrap_or_default(),
            )
        })
        .collect();
    assert!(told.len() > 30, "{told:?}");
    let nameless: Vec<_> = told
        .iter()
        .filter(|(role, name)| name.is_empty() && *role != "list")
        .collect();
    assert!(nameless.is_empty(), "{nameless:?}");
    browser.close().await;
}

#[tokio::test]
async fn the_page_shows_what_a_stop_waits_for() {
    let mut collector = Collector::start().await;
    let program = Program::start(&[("ANALYTICS_URL", &collector.url)]).await;
    let browser = Browser::open(&program.address).await;
    browser.click("[aria-label='Purchase, with after']").await;
    collector.asked().await;
    program.signal(Signal::SIGTERM);
    let phase =
        |text: &str| format!("document.getElementById('phase').textContent.startsWith('{text}')");
    browser
        .until(&phase("The shop is stopping. It waits for: analytics."))
        .await;
    collector.answer();
    browser
        .until(&phase("The shop has stopped: nothing unfinished; "))
        .await;
    assert_eq!(program.ended().await.0, Some(0));
    browser.close().await;
}

/// The process is killed in the middle of a delivery, and started again.
#[tokio::test]
async fn the_page_shows_that_a_job_survived() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", folder.path().join("shop.db").display());
    // Takes deliveries, and never answers.
    let mut receiver = Collector::start().await;
    let url = receiver.url.clone();
    let settings = [("DATABASE_URL", &*database), ("WEBHOOK_URL", &url)];
    let program = Program::start(&settings).await;
    let (_, port) = program.address.rsplit_once(':').unwrap();
    let port = port.to_owned();
    let browser = Browser::open(&program.address).await;
    browser.click("[aria-label='Shipment, with after']").await;
    receiver.asked().await;
    let job = r#"webhook {"shipment":1,"order":1}"#;
    let shows = |state: &str| {
        format!("document.getElementById('jobs').textContent === '{job}enqueued → {state}'")
    };
    browser.until(&shows("attempt 1 runs")).await;
    program.signal(Signal::SIGKILL);
    assert_eq!(program.ended().await.0, None);
    browser
        .until("document.getElementById('phase').textContent.startsWith('The connection to the shop is lost.')")
        .await;

    // With a receiver that is down twice.
    let program = Program::start(&[settings[0], ("PORT", &port)]).await;
    browser
        .until(&shows("the shop was started again → done, 4 attempts"))
        .await;
    browser.close().await;
    drop(program);
}
