//! Man pages and completions: there is one of each command, and the programs they are for can read them.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod machine;

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Output},
};

use machine::Machine;

/// The output of a program, or none if it is not installed.
fn output(program: &mut Command) -> Option<Output> {
    program.output().ok()
}

fn names(command: &clap::Command, before: &str, names: &mut BTreeSet<String>) {
    let name = format!("{before}{}", command.get_name());
    for subcommand in command.get_subcommands() {
        self::names(subcommand, &format!("{name}-"), names);
    }
    names.insert(format!("{name}.1"));
}

#[test]
fn every_command_has_a_man_page_that_man_renders_without_a_warning() {
    let machine = Machine::new();
    fs::create_dir(machine.path("man")).unwrap();
    let run = machine.without_password(&["man", "man", "--format", "json"]);
    let pages: BTreeSet<String> = run.json()["pages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|page| page.as_str().unwrap().to_owned())
        .collect();
    let mut expected = BTreeSet::new();
    names(&sshsm::cli::command_tree(), "", &mut expected);
    assert!(expected.contains("sshsm-backup-create.1"), "{expected:?}");
    assert_eq!(pages, expected);
    for page in pages {
        let file = machine.path("man").join(&page);
        let mut man = Command::new("man");
        man.args(["--local-file", "--warnings", "--encoding=UTF-8"]).env("MANWIDTH", "100").arg(&file);
        // Without groff, man-db is there and renders nothing.
        let Some(rendered) = output(man.env("LC_ALL", "C.UTF-8"))
            .filter(|_| output(Command::new("nroff").arg("--version")).is_some())
        else {
            eprintln!("man or groff is not installed; the pages are not rendered");
            return;
        };
        let (text, told) =
            (String::from_utf8_lossy(&rendered.stdout), String::from_utf8_lossy(&rendered.stderr));
        assert!(rendered.status.success() && told.is_empty(), "{page}: {told}");
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION"] {
            assert!(text.contains(section), "{page} has no {section}: {text}");
        }
    }
    assert_eq!(machine.without_password(&["man", "new/folder"]).code, 0);
    assert!(machine.path("new/folder/sshsm.1").exists(), "a missing folder is created");
    machine.write("file", "");
    let missing = machine.without_password(&["man", "file"]);
    assert!(missing.code == 6 && missing.stderr.contains("file"), "{missing:?}");
}

#[test]
fn completions_load_in_their_shells() {
    let machine = Machine::new();
    for (shell, check, mark) in [
        ("bash", ["bash", "-n"], "complete -F"),
        ("zsh", ["zsh", "-n"], "#compdef sshsm"),
        ("fish", ["fish", "--no-execute"], "complete -c sshsm"),
    ] {
        let script = machine.without_password(&["completions", shell]);
        assert_eq!((script.code, script.stderr.as_str()), (0, ""), "{script:?}");
        assert!(script.stdout.contains(mark) && script.stdout.contains("backup"), "{shell}");
        machine.write(shell, &script.stdout);
        match output(Command::new(check[0]).args(&check[1..]).arg(machine.path(shell))) {
            Some(checked) => assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}"),
            None => eprintln!("{shell} is not installed; its completions are not loaded"),
        }
    }
    assert_eq!(machine.without_password(&["completions", "tcsh"]).code, 2);
}

#[test]
fn bash_completes_commands_and_options() {
    let machine = Machine::new();
    machine.write("complete", &machine.without_password(&["completions", "bash"]).stdout);
    let completed = |words: &str| {
        let script = format!(
            ". ./complete; COMP_WORDS=(sshsm {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _sshsm sshsm \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[@]}}\""
        );
        let output =
            Command::new("bash").args(["-c", &script]).current_dir(machine.path(".")).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(completed("backup cre"), "create");
    assert_eq!(completed("backup restore --share-f"), "--share-file");
    assert_eq!(completed("--format js"), "json");
}
