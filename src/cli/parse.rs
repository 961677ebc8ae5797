//! From arguments, variables and `.env` to a checked command; one line for what is wrong.
//!
//! Two passes: the first takes the command line apart without looking at values; the second checks
//! the settings that the subcommand uses, wherever they come from. So no value is ever a default of
//! the command that prints the help, and a setting that is not used stops nobody.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, CommandFactory, FromArgMatches};

use super::{Cli, Command, USAGE_ERROR, fail, uses};
use crate::config::drop_in::is_without_effect;
use crate::config::{Settings, given_values, nearest};

/// Takes any value, and shows which there are.
#[derive(Clone)]
struct Unchecked(Vec<PossibleValue>);

impl TypedValueParser for Unchecked {
    type Value = OsString;

    fn parse_ref(
        &self,
        _: &clap::Command,
        _: Option<&Arg>,
        value: &OsStr,
    ) -> Result<OsString, clap::Error> {
        Ok(value.to_owned())
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        if self.0.is_empty() {
            return None;
        }
        Some(Box::new(self.0.iter().cloned()))
    }
}

/// The settings' arguments, with their names.
fn settings() -> clap::Command {
    Settings::augment_args(clap::Command::new("fastpubsub"))
}

/// The name of a setting's variable.
fn variable(argument: &Arg) -> Option<String> {
    Some(argument.get_env()?.to_str()?.to_owned())
}

/// The command of the first pass, and of the help.
fn command() -> clap::Command {
    let mut command = Cli::command().mut_args(|argument| {
        if argument.get_env().is_none() {
            return argument;
        }
        let possible = argument.get_possible_values();
        argument
            .hide_env_values(true)
            .value_parser(Unchecked(possible))
    });
    let settings: Vec<Arg> = command
        .get_arguments()
        .filter(|argument| argument.is_global_set())
        .cloned()
        .collect();
    for subcommand in command.get_subcommands_mut() {
        let name = subcommand.get_name().to_owned();
        // what an argument of its own stands for is not taken from above
        let unused = settings
            .iter()
            .filter(|setting| !uses(&name, setting.get_id().as_str()))
            .map(|setting| setting.clone().hide(true));
        *subcommand = std::mem::take(subcommand).args(unused);
    }
    command
}

/// The command, and what to warn of.
pub(super) fn parse() -> Result<(Cli, Vec<String>), ExitCode> {
    let command = command();
    let environment = command.clone();
    let taken_apart = command.try_get_matches().and_then(|matches: ArgMatches| {
        let command = Command::from_arg_matches(&matches)?;
        Ok((matches, command))
    });
    let (matches, command) = taken_apart.map_err(|error| refuse(&error, &environment))?;
    let subcommand = matches.subcommand_name().unwrap_or_default();

    let settings = settings().mut_args(|argument| argument.env(None::<&'static str>));
    let used: Vec<Arg> = self::settings()
        .get_arguments()
        .filter(|setting| uses(subcommand, setting.get_id().as_str()))
        .cloned()
        .collect();
    let values = if used.is_empty() {
        BTreeMap::new()
    } else {
        let drop_in = flag(&matches, "drop_in");
        given_values(drop_in.map(OsString::as_os_str)).map_err(|text| fail(&text, USAGE_ERROR))?
    };
    let checked = settings
        .try_get_matches_from(arguments(&used, &matches, &values))
        .and_then(|matches| Settings::from_arg_matches(&matches))
        .map_err(|error| refuse(&error, &environment))?;
    let settings = checked.check().map_err(|text| fail(&text, USAGE_ERROR))?;
    Ok((Cli { command, settings }, warnings(&values)))
}

/// What the command line says of a setting.
fn flag<'a>(flags: &'a ArgMatches, id: &str) -> Option<&'a OsString> {
    flags
        .get_one::<OsString>(id)
        .filter(|_| flags.value_source(id) == Some(ValueSource::CommandLine))
}

/// The command line of the second pass: settings that are given, as flags.
fn arguments(
    used: &[Arg],
    flags: &ArgMatches,
    values: &BTreeMap<String, OsString>,
) -> Vec<OsString> {
    let mut arguments = vec![OsString::from("fastpubsub")];
    for setting in used {
        let id = setting.get_id().as_str();
        let flag = flag(flags, id);
        let given = variable(setting).and_then(|name| values.get(&name));
        if let (Some(value), Some(long)) = (flag.or(given), setting.get_long()) {
            let mut argument = OsString::from(format!("--{long}="));
            argument.push(value);
            arguments.push(argument);
        }
    }
    arguments
}

/// Misspelt settings are ignored, which must not stay unseen.
fn warnings(values: &BTreeMap<String, OsString>) -> Vec<String> {
    let known: Vec<String> = settings().get_arguments().filter_map(variable).collect();
    let (without_effect, others): (Vec<&str>, Vec<&str>) = values
        .iter()
        .filter(|(name, value)| !known.contains(name) && !is_of_others(name, value))
        .map(|(name, _)| name.as_str())
        .partition(|name| is_without_effect(name));
    let misspelt = others.into_iter().filter_map(|name| {
        let near = nearest(name, known.iter().map(String::as_str))?;
        Some(format!(
            "{name} is no setting and is ignored; the nearest is {near}"
        ))
    });
    let taken = (!without_effect.is_empty()).then(|| {
        format!(
            "without effect, since everything is in Postgres and logs have settings of their own: {}",
            without_effect.join(", ")
        )
    });
    misspelt.chain(taken).collect()
}

/// What Kubernetes sets for a Service named fastpubsub, and what this project's tests use.
fn is_of_others(name: &str, value: &OsStr) -> bool {
    let is_address = value.to_str().is_some_and(|value| value.contains("://"));
    name == "FASTPUBSUB_TEST_DATA_DIR"
        || name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_PORT_")
        || name.ends_with("_PORT") && is_address
}

/// One line for a bad value, without the value, which may be a secret; clap's own text for the rest.
fn refuse(error: &clap::Error, command: &clap::Command) -> ExitCode {
    let is_value = matches!(
        error.kind(),
        ErrorKind::ValueValidation | ErrorKind::InvalidValue
    );
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidArg).filter(|_| is_value)
    else {
        return refuse_words(error);
    };
    let flag = name.split_whitespace().next().unwrap_or(name);
    let variable = command
        .get_arguments()
        .find(|argument| argument.get_long() == Some(flag.trim_start_matches('-')))
        .and_then(variable)
        .map(|variable| format!("{variable} ({flag})"));
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

/// A word in a wrong place may be a secret: only flags are shown.
fn refuse_words(error: &clap::Error) -> ExitCode {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    let is_flag = |word: &str| {
        let name = word.split(['=', ' ']).next().unwrap_or_default();
        let is_ours = |c: char| c.is_ascii_lowercase() || c == '-';
        word.starts_with("--") && name.chars().all(is_ours)
    };
    let is_argument = word(ContextKind::InvalidArg)
        .is_some_and(|word| !is_flag(word) && !word.starts_with(['<', '[']));
    let is_subcommand = word(ContextKind::InvalidSubcommand).is_some();
    let has_value = word(ContextKind::InvalidValue).is_some();
    if error.use_stderr() && (is_argument || is_subcommand || has_value) {
        let what = match error.get(ContextKind::SuggestedSubcommand) {
            Some(ContextValue::Strings(near)) => {
                format!("there is no such subcommand (nearest: {})", near.join(", "))
            }
            _ if is_subcommand => "there is no such subcommand".to_owned(),
            _ => "an argument is not expected (it is not shown, it may be a secret)".to_owned(),
        };
        return fail(&format!("{what}; see fastpubsub --help"), USAGE_ERROR);
    }
    // help and version go to stdout with exit code 0
    match error.print() {
        Err(closed) if !error.use_stderr() => fail(&format!("cannot write to stdout: {closed}"), 1),
        _ if error.use_stderr() => ExitCode::from(USAGE_ERROR),
        _ => ExitCode::SUCCESS,
    }
}
