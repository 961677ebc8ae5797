//! From arguments, variables and `.env` to a checked command; one line for what is wrong.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use super::{Cli, USAGE_ERROR, fail};
use crate::config::fallback_values;

/// The clap command, with the settings' values from `.env` and lower-case variables as defaults.
fn command() -> Result<clap::Command, String> {
    let values = fallback_values()?;
    Ok(Cli::command().mut_args(|argument| {
        let name = argument
            .get_env()
            .and_then(|name| name.to_str())
            .map(str::to_owned);
        match name.and_then(|name| values.get(&name)) {
            Some(value) => argument.default_value(value.clone()),
            None => argument,
        }
    }))
}

pub(super) fn parse() -> Result<Cli, ExitCode> {
    let command = command().map_err(|text| fail(&text, USAGE_ERROR))?;
    let environment = command.clone();
    let checked = command
        .try_get_matches()
        .and_then(|matches: ArgMatches| Cli::from_arg_matches(&matches));
    let mut cli = checked.map_err(|error| refuse(&error, &environment))?;
    cli.settings = cli
        .settings
        .check()
        .map_err(|text| fail(&text, USAGE_ERROR))?;
    Ok(cli)
}

/// One line for a bad value, without the value, which may be a secret; clap's own text for the rest.
fn refuse(error: &clap::Error, command: &clap::Command) -> ExitCode {
    let is_value = matches!(
        error.kind(),
        ErrorKind::ValueValidation | ErrorKind::InvalidValue
    );
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidArg).filter(|_| is_value)
    else {
        // help and version go to stdout with exit code 0
        let _closed_pipe = error.print();
        return if error.use_stderr() {
            ExitCode::from(USAGE_ERROR)
        } else {
            ExitCode::SUCCESS
        };
    };
    let flag = name.split_whitespace().next().unwrap_or(name);
    let variable = command
        .get_arguments()
        .find(|argument| argument.get_long() == Some(flag.trim_start_matches('-')))
        .and_then(|argument| argument.get_env())
        .map(|variable| format!("{} ({flag})", variable.to_string_lossy()));
    let reason = match (
        std::error::Error::source(error),
        error.get(ContextKind::ValidValue),
    ) {
        (Some(reason), _) => reason.to_string(),
        (None, Some(ContextValue::Strings(valid))) if !valid.is_empty() => {
            format!("must be one of {}", valid.join(", "))
        }
        (None, _) => "needs a value".to_owned(),
    };
    fail(
        &format!("{} {reason}", variable.unwrap_or_else(|| name.clone())),
        USAGE_ERROR,
    )
}
