//! What a gateway says when a credential's budget is spent (R-9.6.16).

use arcp_proto::{Error, ErrorCode};
use serde_json::Value;

/// How much of an answer is looked at.
const LOOKED_AT: usize = 64 << 10;

/// `BUDGET_EXHAUSTED`, when this answer of an upstream says that a budget is spent; `None` for any other answer.
///
/// Known are error objects whose `type` or `code` says so, as OpenAI-compatible gateways write them, and the sentences
/// LiteLLM writes where it names no type. An answer that merely quotes such words, with another status, is not one.
pub fn upstream_error(status: u16, body: &[u8]) -> Option<Error> {
    if !matches!(status, 400 | 402 | 403 | 429) {
        return None;
    }
    let body = &body[..body.len().min(LOOKED_AT)];
    let parsed: Value = serde_json::from_slice(body).ok()?;
    let error = match &parsed["error"] {
        Value::Null => &parsed,
        error => error,
    };
    let text = |name: &str| error[name].as_str().unwrap_or_default();
    let named = ["type", "code"]
        .into_iter()
        .any(|name| matches!(text(name), "budget_exceeded" | "budget_exhausted" | "insufficient_quota"));
    let said = error.as_str().unwrap_or_else(|| text("message"));
    let told = ["Budget has been exceeded", "ExceededBudget", "BudgetExceededError", "exceeded budget", "over budget"]
        .into_iter()
        .any(|words| said.contains(words));
    // Its own words may name accounts and amounts of others.
    let message = "the upstream says that the budget of this credential is spent";
    (named || told).then(|| Error::new(ErrorCode::BudgetExhausted, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules: R-9.6.16
    #[test]
    fn a_spent_budget_upstream_is_a_spent_budget_here() {
        for (status, body) in [
            (
                400,
                r#"{"error":{"message":"Budget has been exceeded! Current cost: 1.2, Max budget: 1.0","type":"auth_error","code":400}}"#,
            ),
            (429, r#"{"error":{"message":"anything","type":"budget_exceeded","param":null,"code":"429"}}"#),
            (429, r#"{"error":{"message":"anything","type":"x","code":"budget_exceeded"}}"#),
            (400, r#"{"error":{"message":"ExceededBudget: User spend=2, budget=1","type":"auth_error","code":400}}"#),
            (429, r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#),
            (400, r#"{"error":"BudgetExceededError: key"}"#),
            (403, r#"{"message":"Team=a over budget","type":"x"}"#),
        ] {
            let error = upstream_error(status, body.as_bytes()).unwrap_or_else(|| panic!("{status} {body}"));
            assert_eq!((error.code, error.retryable), (ErrorCode::BudgetExhausted, false));
        }
    }

    #[test]
    fn other_answers_are_left_alone() {
        for (status, body) in [
            (200, r#"{"error":{"type":"budget_exceeded"}}"#),
            (500, r#"{"error":{"type":"budget_exceeded"}}"#),
            (429, r#"{"error":{"message":"rate limit reached","type":"rate_limit_error","code":"429"}}"#),
            (400, r#"{"error":{"message":"bad model","type":"invalid_request_error"}}"#),
            (400, r#"{"choices":[{"text":"Budget has been exceeded"}]}"#),
            (400, "Budget has been exceeded"),
            (400, ""),
            (400, "[]"),
        ] {
            assert_eq!(upstream_error(status, body.as_bytes()), None, "{status} {body}");
        }
    }
}
