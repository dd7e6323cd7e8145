//! The `mongoferry` command: from a command line to an exit code. Everything else is in the library.

use mongoferry::cli::{self, Parsed};
use mongoferry::commands::{self, Outcome};
use mongoferry::config::layer::RawArguments;
use mongoferry::config::{self, Configuration};
use mongoferry::environment::{self, Environment};
use mongoferry::error::{EXIT_YIELD, Kind, Result};
use mongoferry::{lambda, output, telemetry};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    telemetry::report_panics();
    // A panic has printed its line by then; what is left to do is to end as any other failure does.
    match std::panic::catch_unwind(run) {
        Ok(Ok(Outcome::Done)) => ExitCode::SUCCESS,
        Ok(Ok(Outcome::Yield)) => ExitCode::from(EXIT_YIELD),
        Ok(Err(error)) => {
            output::error(&error);
            ExitCode::from(error.kind().exit_code())
        }
        Err(_) => ExitCode::from(Kind::Internal.exit_code()),
    }
}

fn run() -> Result<Outcome> {
    // First, since it registers secrets that a message about the command line must not show.
    let environment = Environment::read();
    let none_given = RawArguments::default();
    output::errors_as_json(environment.as_ref().is_ok_and(|environment| config::wants_json(&none_given, environment)));
    if environment::is_function() {
        return serve(environment?);
    }
    let (command, flags) = match cli::parse(std::env::args_os())? {
        Parsed::Run(command, flags) => (command, flags),
        Parsed::Print(text) => return output::result_line(&text).map(|()| Outcome::Done),
    };
    let environment = environment?;
    output::errors_as_json(config::wants_json(&flags, &environment));
    commands::run(&Configuration::read(command, flags, environment, Path::new(""))?)
}

/// Serves AWS Lambda, until that takes the process down.
fn serve(environment: Environment) -> Result<Outcome> {
    let level = config::function_log_level(&environment)?;
    telemetry::init(telemetry::LogFormat::Json, level);
    output::errors_as_json(true);
    lambda::serve(environment).map(|()| Outcome::Done)
}
