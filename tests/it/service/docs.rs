//! Every example of `docs/api.md`, run in its order.

use axum::body::Body;
use axum::http::Request;

use super::Fixture;

/// One `curl` of the guide: method, path, body, and the status that the guide promises behind `# `.
struct Example {
    method: &'static str,
    path: String,
    body: Option<String>,
    status: u16,
}

fn examples(guide: &str) -> Vec<Example> {
    let joined = guide.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| line.starts_with("curl "));
    lines.map(|line| parse(line).unwrap_or_else(|| panic!("not understood: {line}"))).collect()
}

fn parse(line: &str) -> Option<Example> {
    let (command, status) = line.rsplit_once(" # ")?;
    let path = command.split("localhost:3000").nth(1)?.split(['\'', ' ']).next()?.to_owned();
    let body = command
        .split_once("-d '")
        .and_then(|(_, rest)| rest.rsplit_once('\''))
        .map(|(body, _)| body.to_owned());
    let method = if body.is_some() { "POST" } else { "GET" };
    Some(Example { method, path, body, status: status.trim().parse().ok()? })
}

#[tokio::test]
async fn every_example_of_the_guide_does_what_it_says() {
    let fixture = Fixture::start(0).await;
    let guide = include_str!("../../../docs/api.md");
    let examples = examples(guide);
    assert!(examples.len() > 12, "the guide has {} examples", examples.len());
    let (mut transaction, mut settlement) = (String::new(), String::new());
    for example in examples {
        let path = example.path.replace("$TRANSACTION", &transaction).replace("$SETTLEMENT", &settlement);
        let request =
            Request::builder().method(example.method).uri(&path).header("content-type", "application/json");
        let answer =
            fixture.send(request.body(example.body.map(Body::from).unwrap_or_default()).unwrap()).await;
        assert_eq!(answer.status.as_u16(), example.status, "{} {path}: {:#}", example.method, answer.body);
        let id = |place: &str| {
            let location = answer.headers.get("location")?.to_str().ok()?;
            location.strip_prefix(place).map(str::to_owned)
        };
        transaction = id("/transactions/").unwrap_or(transaction);
        settlement = id("/settlements/").unwrap_or(settlement);
    }
}
