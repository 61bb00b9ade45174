//! `cargo xtask book`: the pages in `docs/` as a book, built by mdBook into the target directory and checked: every page
//! is in `docs/SUMMARY.md`, and every link of a built page leads to a file and an anchor in the book.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Component, Path, PathBuf},
};

use crate::{
    program::{Failure, Run as _, program, root, target},
    tool::MDBOOK,
};

/// Pages that mdBook adds: all pages in one, and the page for addresses that do not exist.
const ADDED: [&str; 2] = ["print.html", "404.html"];

/// Builds the book and checks it.
pub(crate) fn chore() -> Result<(), Failure> {
    let book = target()?.join("book");
    program(MDBOOK.needed()?).arg("build").arg("--dest-dir").arg(&book).run()?;
    let wrong = check(&root().join("docs"), &book).map_err(Failure::System)?;
    wrong.iter().for_each(|what| println!("{what}"));
    if wrong.is_empty() {
        println!("book: {}", book.join("index.html").display());
        Ok(())
    } else {
        Err(Failure::Refused(format!("the book has {} faults", wrong.len())))
    }
}

/// The faults of a built book: pages of the source that it lacks, and links that lead nowhere.
fn check(source: &Path, book: &Path) -> io::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for page in files(source, "md")? {
        let name = page.file_stem().unwrap_or_default().to_string_lossy();
        if name != "SUMMARY" && !book.join(format!("{name}.html")).is_file() {
            wrong.push(format!("{name}.md is not in SUMMARY.md"));
        }
    }
    let mut pages = BTreeMap::new();
    for page in files(book, "html")? {
        pages.insert(page.clone(), fs::read_to_string(&page)?);
    }
    for (page, text) in &pages {
        let name = page.file_name().unwrap_or_default().to_string_lossy();
        if ADDED.contains(&&*name) {
            continue;
        }
        for link in text.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            if !link.contains(':') && !leads_somewhere(link, page, book, &pages) {
                wrong.push(format!("{name}: {link} leads nowhere"));
            }
        }
    }
    Ok(wrong)
}

/// Whether a link of a page names a file in the book, and an anchor that this file has.
fn leads_somewhere(link: &str, page: &Path, book: &Path, pages: &BTreeMap<PathBuf, String>) -> bool {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let Some(file) = (if path.is_empty() { Some(page.to_owned()) } else { within(book, path) }) else {
        return false;
    };
    let has_anchor = || pages.get(&file).is_some_and(|text| text.contains(&format!("id=\"{anchor}\"")));
    file.is_file() && (anchor.is_empty() || has_anchor())
}

/// The file that a relative path names, unless it leaves the folder.
fn within(folder: &Path, path: &str) -> Option<PathBuf> {
    let inside =
        Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    inside.then(|| folder.join(path))
}

/// The files with an extension in a folder.
fn files(folder: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    let files = entries.into_iter().map(|entry| entry.path());
    Ok(files.filter(|file| file.extension().is_some_and(|found| found == extension)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source of two pages, and the book that was made of it.
    fn book(link: &str) -> (tempfile::TempDir, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let (source, book) = (folder.path().join("docs"), folder.path().join("book"));
        fs::create_dir(&source).unwrap();
        fs::create_dir(&book).unwrap();
        for name in ["SUMMARY", "a", "b"] {
            fs::write(source.join(format!("{name}.md")), "").unwrap();
        }
        fs::write(book.join("a.html"), format!("<a href=\"{link}\">")).unwrap();
        fs::write(book.join("b.html"), "<h2 id=\"here\"><a href=\"#here\"><a href=\"https://example.com/\">")
            .unwrap();
        let wrong = check(&source, &book).unwrap();
        (folder, wrong)
    }

    #[test]
    fn a_link_that_leads_nowhere_is_a_fault() {
        for good in ["b.html", "b.html#here", "https://example.com"] {
            assert_eq!(book(good).1, <[String; 0]>::default(), "{good}");
        }
        for bad in ["c.html", "b.html#there", "#here", "../README.html"] {
            assert_eq!(book(bad).1, [format!("a.html: {bad} leads nowhere")]);
        }
    }

    #[test]
    fn a_page_that_is_not_in_the_summary_is_a_fault() {
        let (folder, _) = book("b.html");
        fs::write(folder.path().join("docs").join("c.md"), "").unwrap();
        let wrong = check(&folder.path().join("docs"), &folder.path().join("book")).unwrap();
        assert_eq!(wrong, ["c.md is not in SUMMARY.md"]);
    }
}
