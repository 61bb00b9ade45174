//! What documents and sources refer to exists: links and their anchors, files and functions of this repository, and
//! the sections that a source cites as `docs/NAME.md, "Section"`. The pages in `docs/` are also a book, which holds
//! all of them and nothing else.
#![allow(clippy::unwrap_used, reason = "a test reports by stopping")]

use regex::Regex;
use sshsm_tests::requirement::workspace;
use std::{fs, path::Path};

/// The files with one of these endings below a folder, with their text; nothing that is hidden or was built.
fn files(folder: &Path, endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            found.extend(files(&path, endings));
        } else if path.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

/// Whether a Markdown file has a heading that satisfies `wanted`.
fn has_heading(file: &Path, wanted: impl Fn(&str) -> bool) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().any(|line| line.starts_with('#') && wanted(line.trim_start_matches('#').trim_start()))
}

/// A heading's anchor, as GitHub makes it.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_of_a_document_leads_somewhere_and_every_file_that_it_names_is_there() {
    let link = Regex::new(r"\]\(([^):#]*)#?([^):]*)\)").unwrap();
    let named = Regex::new(r"`([A-Za-z0-9_][A-Za-z0-9_.-]*)/([A-Za-z0-9_./-]*)(::[a-z0-9_]+)?`").unwrap();
    let mut wrong = Vec::new();
    for (document, text) in files(workspace(), &[".md"]) {
        let mut expect =
            |there: bool, what: &str| wrong.extend((!there).then(|| format!("{document}: {what}")));
        for (whole, [path, fragment]) in link.captures_iter(&text).map(|found| found.extract()) {
            let file = Path::new(&document);
            let file = if path.is_empty() { file.to_owned() } else { file.with_file_name(path) };
            let leads = fragment.is_empty() || has_heading(&file, |title| anchor(title) == fragment);
            expect(file.exists() && leads, whole);
        }
        for found in named.captures_iter(&text) {
            // A path that does not begin with one of our folders belongs to someone else.
            let folder = workspace().join(&found[1]);
            let file = folder.join(&found[2]);
            let there = found.get(3).map_or(file.exists(), |function| {
                let signature = function.as_str().replace("::", "fn ");
                let text = fs::read_to_string(&file).unwrap_or_default();
                text.contains(&format!("{signature}(")) || text.contains(&format!("{signature}<"))
            });
            expect(&found[1] == "target" || !folder.is_dir() || there, &found[0]);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_books_summary_lists_every_page_and_no_page_links_to_a_file_outside_the_book() {
    let docs = workspace().join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let outside = Regex::new(r"\]\(\.\./[^)]*\)").unwrap();
    let pages = files(&docs, &[".md"]);
    let mut wrong = Vec::new();
    for (page, text) in &pages {
        let name = Path::new(page).file_name().unwrap().to_string_lossy();
        let listed = summary.contains(&format!("]({name})")) || name == "SUMMARY.md";
        wrong.extend((!listed).then(|| format!("{name} is not in docs/SUMMARY.md")));
        wrong.extend(outside.find_iter(text).map(|link| format!("{name}: {}", link.as_str())));
    }
    assert!(pages.len() > 20 && wrong.is_empty(), "{} pages\n{}", pages.len(), wrong.join("\n"));
}

#[test]
fn every_section_that_a_source_cites_is_there() {
    let comment = Regex::new(r"\n\s*(//[/!]?|#)\s*").unwrap();
    let cited = Regex::new(r#"(docs/[a-z0-9-]+\.md)(, "([^"]+)")?"#).unwrap();
    let (mut sections, mut wrong) = (0, Vec::new());
    for (source, text) in files(workspace(), &[".rs", ".toml"]) {
        for found in cited.captures_iter(&comment.replace_all(&text, " ")) {
            let file = workspace().join(&found[1]);
            let title = found.get(3).map(|title| title.as_str());
            sections += usize::from(title.is_some());
            if !file.exists() || title.is_some_and(|title| !has_heading(&file, |heading| heading == title)) {
                wrong.push(format!("{source}: {}", &found[0]));
            }
        }
    }
    assert!(sections > 20 && wrong.is_empty(), "{sections} citations\n{}", wrong.join("\n"));
}
