//! What others know about definitions of state machines, templates and policies: asl-validator, statelint, cfn-lint and
//! parliament, each on the real files, and each shown to notice a mistake. They look at forms; what a job needs of the definition
//! is in `aws_definition`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::guarded::install;
use crate::support::servers::Failure;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn definition() -> Result<Value, Failure> {
    Ok(serde_json::from_str(&fs::read_to_string(repository("statemachine/copy.asl.json"))?)?)
}

/// A tool's own words, or nothing when it is content.
fn ask(command: &mut Command) -> Result<String, Failure> {
    let output = command.output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.success() {
        true => Ok(String::new()),
        false if text.trim().is_empty() => Err(format!("{command:?} failed and says nothing").into()),
        false => Ok(text),
    }
}

fn asl_validator(definition: &Value) -> Result<String, Failure> {
    let file = written("definition.json", &definition.to_string())?;
    ask(Command::new("node")
        .arg(install(&["asl-validator"])?)
        .arg("--json-path")
        .arg(file.path().join("definition.json")))
}

/// statelint knows the language with Distributed Maps, but not all that AWS has added to it: labels, and the type of what is
/// read.
fn statelint(definition: &Value) -> Result<String, Failure> {
    let mut known = definition.clone();
    for map in ["Copy", "Index", "Verify"] {
        let map = &mut known["States"][map];
        map.as_object_mut().and_then(|map| map.remove("Label"));
        map["ItemReader"]["ReaderConfig"].as_object_mut().and_then(|config| config.remove("InputType"));
    }
    let file = written("definition.json", &known.to_string())?;
    ask(Command::new(install(&["linters"])?).args(["-m", "statelint"]).arg(file.path().join("definition.json")))
}

fn written(name: &str, text: &str) -> Result<TempDir, Failure> {
    let folder = TempDir::new()?;
    fs::write(folder.path().join(name), text)?;
    Ok(folder)
}

/// The template beside the definition, with a change.
fn template(from: &str, to: &str) -> Result<TempDir, Failure> {
    let text = fs::read_to_string(repository("template.yaml"))?;
    if !text.contains(from) {
        return Err(format!("template.yaml has no {from:?} that could be changed").into());
    }
    let folder = written("template.yaml", &text.replacen(from, to, 1))?;
    fs::create_dir(folder.path().join("statemachine"))?;
    fs::copy(repository("statemachine/copy.asl.json"), folder.path().join("statemachine/copy.asl.json"))?;
    Ok(folder)
}

fn expand(folder: &Path) -> Result<String, Failure> {
    let output = Command::new(install(&["linters"])?)
        .arg(repository("infra/aws/expand.py"))
        .arg(folder.join("template.yaml"))
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr)?.into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn cfn_lint(template: &str) -> Result<String, Failure> {
    let file = written("template.json", template)?;
    let run = "import sys; from cfnlint.runner import main; sys.exit(main())";
    ask(Command::new(install(&["linters"])?).args(["-c", run]).arg(file.path().join("template.json")))
}

fn parliament(folder: &Path) -> Result<String, Failure> {
    let policies = ["infra/iam/operator.json", "infra/iam/runner.json"].map(repository);
    ask(Command::new(install(&["linters"])?)
        .arg(repository("infra/aws/policies.py"))
        .arg(folder.join("template.yaml"))
        .args(policies))
}

#[test]
fn asl_validator_has_nothing_against_the_definition() -> Result<(), Failure> {
    let mut definition = definition()?;
    assert_eq!(asl_validator(&definition)?, "");
    definition["States"]["PlanEnded"]["Choices"][0]["Next"] = json!("Plann");
    assert!(asl_validator(&definition)?.contains("Plann"));
    Ok(())
}

#[test]
fn statelint_has_nothing_against_the_definition() -> Result<(), Failure> {
    let mut definition = definition()?;
    assert_eq!(statelint(&definition)?, "");
    definition["States"]["Plan"]["TimeoutSecond"] = json!(910);
    assert!(statelint(&definition)?.contains("TimeoutSecond"));
    Ok(())
}

#[test]
fn cfn_lint_has_nothing_against_the_expanded_template() -> Result<(), Failure> {
    assert_eq!(cfn_lint(&expand(&repository("."))?)?, "");
    let changed = template("Principal: events.amazonaws.com", "Principals: events.amazonaws.com")?;
    assert!(cfn_lint(&expand(changed.path())?)?.contains("Principals"));
    // What SAM hides until it is expanded.
    let changed = template("MemorySize: !Ref MemorySize", "MemorySize: 64")?;
    assert!(cfn_lint(&expand(changed.path())?)?.contains("64"));
    Ok(())
}

#[test]
fn parliament_has_nothing_against_the_policies() -> Result<(), Failure> {
    assert_eq!(parliament(&repository("."))?, "");
    let changed = template("Action: secretsmanager:GetSecretValue", "Action: secretsmanager:GetSecret")?;
    assert!(parliament(changed.path())?.contains("GetSecret"));
    let changed = template("Resource: !Ref SecretArns", "Resource: \"*\"")?;
    assert!(parliament(changed.path())?.contains("RESOURCE_STAR"));
    Ok(())
}

/// What only both together can say: every placeholder of the definition is put in, and no task ends before its invocation.
#[test]
fn template_and_definition_go_together() -> Result<(), Failure> {
    let expanded: Value = serde_json::from_str(&expand(&repository("."))?)?;
    let machine = &expanded["Resources"]["Machine"]["Properties"];
    let put_in: Vec<&String> =
        machine["DefinitionSubstitutions"].as_object().into_iter().flatten().map(|(name, _)| name).collect();
    assert_eq!(put_in, ["FunctionArn", "StateBucket"]);
    // A job that runs keeps its binary: a version, not the alias that moves on with the next deployment.
    let function = machine["DefinitionSubstitutions"]["FunctionArn"]["Ref"].as_str().ok_or("no function")?;
    assert_eq!(expanded["Resources"][function]["Type"], "AWS::Lambda::Version");
    assert_eq!(expanded["Resources"][function]["DeletionPolicy"], "Retain");
    let timeout = expanded["Resources"]["Function"]["Properties"]["Timeout"].as_u64().ok_or("no time-out")?;
    assert!(definition()?["States"]["Discover"]["TimeoutSeconds"].as_u64() > Some(timeout));
    Ok(())
}

/// cargo-lambda makes a release abort at a panic unless the manifest says otherwise: the sandbox would be gone, and its
/// invocation fail with `Runtime.ExitError`, which is retried, where it should say `Internal`.
#[test]
fn a_panic_in_the_function_unwinds() -> Result<(), Failure> {
    let manifest: toml::Value = toml::from_str(&fs::read_to_string(repository("Cargo.toml"))?)?;
    assert_eq!(manifest["profile"]["release"]["panic"].as_str(), Some("unwind"));
    Ok(())
}
