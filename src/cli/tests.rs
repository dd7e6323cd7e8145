#![expect(clippy::unwrap_used, reason = "a test may fail")]

use super::arguments::HELP_WIDTH;
use super::*;
use crate::config::layer;
use crate::config::layer::{Places, SETTINGS};
use crate::error::Kind;
use std::path::Path;

fn parse_words(words: &[&str]) -> Result<Parsed> {
    parse(std::iter::once("mongoferry").chain(words.iter().copied()).map(OsString::from))
}

fn printed(words: &[&str]) -> String {
    match parse_words(words) {
        Ok(Parsed::Print(text)) => text,
        Ok(Parsed::Run(command, _)) => panic!("{words:?} runs {command:?}"),
        Err(error) => panic!("{words:?}: {error}"),
    }
}

/// `UPDATE_GOLDEN=1 cargo test help_texts` rewrites them; read the difference before you commit it.
#[test]
fn help_texts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/help");
    for command in
        ["", "step", "check", "status", "report", "jobs", "control", "start", "abandon", "rejected", "completions"]
    {
        let (name, words) =
            if command.is_empty() { ("mongoferry", vec!["--help"]) } else { (command, vec![command, "--help"]) };
        let text = format!("{}\n", printed(&words));
        let file = folder.join(format!("{name}.txt"));
        if crate::environment::variable("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        let golden = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(text, golden, "{} differs; UPDATE_GOLDEN=1 rewrites it", file.display());
        assert!(text.lines().all(|line| line.chars().count() <= HELP_WIDTH), "{name} is too wide");
    }
}

#[test]
fn the_definition_is_sound() {
    Arguments::command().debug_assert();
}

/// A flag that config does not know, or a setting without a flag, would be ignored silently.
#[test]
fn flags_and_settings_are_the_same() {
    let command = Arguments::command();
    let step = command.find_subcommand("step").unwrap();
    let mut flags: Vec<&str> = step.get_arguments().filter_map(|argument| argument.get_long()).collect();
    flags.push("state-machine");
    let mut settings: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
    flags.sort_unstable();
    settings.sort_unstable();
    assert_eq!(flags, settings);
    // `start` has those that a function can do something with.
    let start = command.find_subcommand("start").unwrap();
    let mut flags: Vec<&str> = start.get_arguments().filter_map(|argument| argument.get_long()).collect();
    let of_step = ["time-budget", "takeover", "dry-run", "shard", "lane", "namespace", "http"];
    settings.retain(|name| !of_step.contains(name));
    settings.extend(["redrive", "watch"]);
    flags.sort_unstable();
    settings.sort_unstable();
    assert_eq!(flags, settings);
    for subcommand in command.get_subcommands() {
        for argument in subcommand.get_arguments() {
            let Some(setting) = argument.get_long().and_then(layer::find) else { continue };
            let help = argument.get_help().unwrap().to_string();
            let named = help.contains(&format!("[env: {}]", setting.variable()));
            assert_eq!(named, setting.places != Places::Flag, "{}: {help}", setting.name);
        }
    }
}

#[test]
fn every_flag_reaches_the_raw_arguments() {
    let mut words = vec!["step".to_owned(), "index".to_owned()];
    let elsewhere = ["shard", "lane", "verify", "against", "state-machine"];
    let valued = SETTINGS.iter().filter(|setting| !setting.switch && !elsewhere.contains(&setting.name));
    for setting in valued.clone() {
        words.push(format!("--{}={}-value", setting.name, setting.name));
    }
    words.extend(["--drop-committed", "--accept-findings", "--takeover", "--quiet"].map(str::to_owned));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Parsed::Run(command, raw) = parse_words(&words).unwrap() else { panic!("prints") };
    assert_eq!(command, Command::Step(StepName::Index));
    for setting in valued {
        assert!(raw.has(setting.name), "{}", setting.name);
    }
    assert!(raw.drop_committed && raw.accept_findings && raw.takeover && raw.quiet);

    let mut words = vec!["start".to_owned(), "--watch".to_owned(), "--accept-findings".to_owned()];
    let elsewhere = ["time-budget", "shard", "lane", "namespace", "http"];
    let valued = SETTINGS.iter().filter(|setting| !setting.switch && !elsewhere.contains(&setting.name));
    words.extend(valued.clone().map(|setting| format!("--{}=value", setting.name)));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Parsed::Run(command, raw) = parse_words(&words).unwrap() else { panic!("prints") };
    assert_eq!(command, Command::Start(Asked { watch: true, redrive: false }));
    for setting in valued {
        assert!(raw.has(setting.name), "{}", setting.name);
    }
    assert!(raw.accept_findings && !raw.drop_committed);
}

#[test]
fn the_version_says_which_state_it_writes() {
    assert_eq!(printed(&["--version"]), format!("mongoferry {} (state version 2)", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_are_printed() {
    for (shell, part) in [("bash", "complete -F"), ("zsh", "#compdef mongoferry"), ("fish", "complete -c mongoferry")] {
        assert!(printed(&["completions", shell]).contains(part), "{shell}");
    }
}

#[test]
fn usage_errors_are_one_line() {
    let table: [(&[&str], &str); 19] = [
        (&[], "requires a subcommand"),
        (&["stop"], "unrecognized subcommand 'stop'"),
        (&["step"], "<STEP>"),
        (&["step", "coppy"], "invalid value 'coppy' for '<STEP>'"),
        (&["step", "coppy"], "'copy'"),
        (&["step", "all", "--jop", "x"], "'--jop'"),
        (&["step", "all", "--jop", "x"], "'--job'"),
        (&["step", "all", "--job"], "--job <NAME>"),
        (&["step", "all", "--job", "a", "--job", "b"], "cannot be used multiple times"),
        (&["step", "all", "copy"], "'copy'"),
        (&["status", "--source", "mongodb://h"], "'--source'"),
        (&["step", "all", "--lane", "1"], "--lane goes with `step copy` only"),
        (&["step", "index", "--shard", "rs0"], "--shard goes with `step copy` only"),
        (&["step", "copy", "--namespace", "a.b"], "--namespace goes with `step index` and `step verify` only"),
        (&["step", "copy", "--verify", "full"], "--verify goes with `step verify` and `step all` only"),
        (&["step", "copy", "--dry-run"], "--dry-run goes with `step all` only, not with `step copy`"),
        (&["step", "index", "--against", "source"], "--against goes with `step verify` and `step all` only"),
        (&["completions", "tcsh"], "tcsh"),
        (&["step", "all", "mongodb://u:secret-60x@h/"], "unexpected argument"),
    ];
    for (words, part) in table {
        let error = parse_words(words).map(|_| ()).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), Kind::BadInput);
        assert!(text.contains(part), "{words:?}: {text}");
        assert!(!text.contains(['\n', '\r']) && !text.contains("secret-60x") && !text.contains("Usage"), "{text}");
    }
}
