//! Times that were measured, read from a file.

use std::error::Error;
use std::time::Duration;

use quick_xml::events::Event;

/// The tests of a file, each with how long it takes: JUnit XML, or the history as CSV. Tests that took no
/// time at all, skipped ones say, are left out.
pub(crate) fn read(file: &str) -> Result<Vec<(String, Duration)>, Box<dyn Error>> {
    let in_file = |error: Box<dyn Error>| format!("{file} cannot be used: {error}");
    let text = std::fs::read_to_string(file).map_err(|error| in_file(error.into()))?;
    let is_xml = text.trim_start().starts_with('<');
    let mut timings = if is_xml {
        of_junit(&text)
    } else {
        of_csv(&text)
    }
    .map_err(in_file)?;
    timings.retain(|(_, takes)| !takes.is_zero());
    if timings.is_empty() {
        return Err(in_file("it has no test with a time".into()).into());
    }
    Ok(timings)
}

fn of_junit(text: &str) -> Result<Vec<(String, Duration)>, Box<dyn Error>> {
    let mut reader = quick_xml::Reader::from_str(text);
    let mut timings = Vec::new();
    loop {
        let element = match reader.read_event()? {
            Event::Eof => return Ok(timings),
            Event::Start(element) | Event::Empty(element) => element,
            _ => continue,
        };
        if element.local_name().as_ref() != b"testcase" {
            continue;
        }
        let (mut name, mut seconds) = (String::new(), 0.0);
        for attribute in element.attributes() {
            let attribute = attribute?;
            let value = String::from_utf8_lossy(&attribute.value).into_owned();
            match attribute.key.as_ref() {
                b"classname" => name.insert_str(0, &value),
                b"name" => name.push_str(&value),
                // Some write a thousand seconds as 1,000.
                b"time" => seconds = value.replace(',', "").parse()?,
                _ => {}
            }
        }
        timings.push((name, Duration::try_from_secs_f64(seconds)?));
    }
}

fn of_csv(text: &str) -> Result<Vec<(String, Duration)>, Box<dyn Error>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headers = reader.headers()?.clone();
    let column = |name: &str| {
        let found = headers.iter().position(|it| it == name);
        found.ok_or_else(|| format!("it has no column `{name}`"))
    };
    let (suite, test) = (column("suite")?, column("test")?);
    let seconds = column("expected_seconds")?;
    let mut timings = Vec::new();
    for row in reader.records() {
        let row = row?;
        let field = |index| row.get(index).unwrap_or_default();
        let name = format!("{} {}", field(suite), field(test));
        let takes = Duration::try_from_secs_f64(field(seconds).parse()?)?;
        timings.push((name, takes));
    }
    Ok(timings)
}
