//! What a state machine and its executions are called.

use super::job_name::JobName;
use sha2::{Digest, Sha256};
use std::fmt;

/// The longest name that Step Functions takes.
const LONGEST: usize = 80;

/// What is left for the job's name beside a hash, a number of seven digits and what is between them.
const LONGEST_JOB: usize = LONGEST - 1 - HASH - 1 - 7;

/// How many hexadecimal digits of a hash are enough to tell one plan of a job from another.
const HASH: usize = 8;

/// The ARN of a state machine, perhaps of a version or an alias of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateMachineArn {
    text: String,
    region: String,
    /// Without a version or an alias.
    machine: String,
}

impl StateMachineArn {
    /// Checks its form.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wanted = "write arn:aws:states:REGION:ACCOUNT:stateMachine:NAME, as the stack's outputs have it";
        let parts: Vec<&str> = text.split(':').collect();
        let good =
            |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        match parts[..] {
            ["arn", _, "states", region, account, "stateMachine", _]
            | ["arn", _, "states", region, account, "stateMachine", _, _]
                if parts.iter().all(good) && account.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                Ok(Self { text: text.to_owned(), region: region.to_owned(), machine: parts[..7].join(":") })
            }
            ["arn", _, "states", _, _, "execution", ..] => {
                Err(format!("is the ARN of an execution, not of its state machine; {wanted}"))
            }
            _ => Err(format!("is not the ARN of a state machine; {wanted}")),
        }
    }

    /// It.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where it is.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The machine, whichever version or alias was named: an execution of any of them works on the job.
    pub fn machine(&self) -> &str {
        &self.machine
    }
}

/// The name of an execution: `<job>-<plan>-<number>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutionName {
    job: String,
    plan: String,
    number: u64,
}

/// What stands in a plan's place before there is one.
const UNPLANNED: &str = "new";

impl ExecutionName {
    /// Of this job with the plan of this hash.
    pub fn new(job: &JobName, plan: Option<&str>, number: u64) -> Self {
        let plan = plan.and_then(|hash| hash.get(..HASH)).unwrap_or(UNPLANNED);
        Self { job: part(job), plan: plan.to_owned(), number }
    }

    /// The number of an execution with this name; none when it is not one of this job.
    pub fn number_of(job: &JobName, name: &str) -> Option<u64> {
        let (plan, number) = name.strip_prefix(&part(job))?.strip_prefix('-')?.split_once('-')?;
        let is_hash = plan.len() == HASH && plan.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        ((is_hash || plan == UNPLANNED) && is_number).then(|| number.parse().ok()).flatten()
    }
}

impl fmt::Display for ExecutionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.job, self.plan, self.number)
    }
}

/// The job's name, cut where it is long, with a hash of all of it behind it.
fn part(job: &JobName) -> String {
    let name = job.as_str();
    if name.len() <= LONGEST_JOB {
        return name.to_owned();
    }
    let hash: String =
        Sha256::digest(name.as_bytes()).iter().take(HASH / 2).map(|byte| format!("{byte:02x}")).collect();
    // A job's name is ASCII.
    format!("{}-{hash}", name.get(..LONGEST_JOB - 1 - HASH).unwrap_or(name))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    #[test]
    fn arns() {
        const MACHINE: &str = "arn:aws:states:eu-central-1:123456789012:stateMachine:ferry";
        for text in [MACHINE, &format!("{MACHINE}:live"), &format!("{MACHINE}:12")] {
            let arn = StateMachineArn::parse(text).unwrap();
            assert_eq!((arn.as_str(), arn.region(), arn.machine()), (text, "eu-central-1", MACHINE));
        }
        for text in [
            "",
            "ferry",
            "arn:aws:states:eu-central-1:123456789012:stateMachine:",
            "arn:aws:states::123456789012:stateMachine:ferry",
            "arn:aws:states:eu-central-1:me:stateMachine:ferry",
            "arn:aws:lambda:eu-central-1:123456789012:function:ferry",
            "arn:aws:states:eu-central-1:123456789012:stateMachine:a:b:c",
            "arn:aws:states:eu-central-1:123456789012:stateMachine:a b",
        ] {
            assert!(StateMachineArn::parse(text).unwrap_err().contains("is not the ARN of a state machine"), "{text}");
        }
        let execution = "arn:aws:states:eu-central-1:123456789012:execution:ferry:shop-new-1";
        assert!(StateMachineArn::parse(execution).unwrap_err().contains("of an execution"));
    }

    #[test]
    fn names_of_executions_are_those_of_one_job() {
        let job = |name: &str| JobName::parse(name).unwrap();
        let name = |name: &str, plan, number| ExecutionName::new(&job(name), plan, number).to_string();
        assert_eq!(name("shop", None, 1), "shop-new-1");
        assert_eq!(name("shop", Some("0123456789abcdef"), 12), "shop-01234567-12");
        for (of, called, number) in [
            ("shop", "shop-new-1", Some(1)),
            ("shop", "shop-01234567-12", Some(12)),
            ("shop", "shop-new-new-1", None),
            ("shop-new", "shop-new-1", None),
            ("shop-new", "shop-new-new-1", Some(1)),
            ("shop", "shop-01234567-new-1", None),
            ("shop", "shop-new-", None),
            ("shop", "shop-new-1a", None),
            ("shop", "shop", None),
            ("shop", "shop2-new-1", None),
            ("shop", "by-hand", None),
        ] {
            assert_eq!(ExecutionName::number_of(&job(of), called), number, "{of} {called}");
        }
        let (long, other) = ("j".repeat(100), format!("{}k", "j".repeat(99)));
        let named = name(&long, Some("0123456789abcdef"), 9_999_999);
        assert!(named.len() <= LONGEST, "{named}");
        assert_eq!(ExecutionName::number_of(&job(&long), &named), Some(9_999_999));
        assert_eq!(ExecutionName::number_of(&job(&other), &named), None);
    }
}
