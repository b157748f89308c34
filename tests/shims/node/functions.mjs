// The pure functions of the library, by name (see ../README.md).

import {
  assertLeaseSubset,
  Envelope,
  errorFromPayload,
  intersectFeatures,
  parseAgentRef,
  parseBudgetAmount,
  validateLeaseOp,
} from "../../../node/dist/index.js";

export const FUNCTIONS = {
  parse_agent_ref: ({ text }) => {
    const { name, version } = parseAgentRef(text);
    return { name, version: version ?? null };
  },

  parse_budget_amount: ({ text }) => parseBudgetAmount(text),

  validate_lease_op: ({ lease, namespace, target }) => {
    validateLeaseOp(lease, namespace, target);
    return {};
  },

  is_lease_subset({ child, parent, child_expires_at, parent_expires_at, parent_remaining }) {
    const options = {
      childExpiresAt: child_expires_at,
      parentExpiresAt: parent_expires_at,
      parentRemaining: parent_remaining,
    };
    try {
      assertLeaseSubset(child, parent, options);
      return { subset: true };
    } catch (error) {
      return { subset: false, code: error.code };
    }
  },

  intersect_features: ({ client, runtime }) => ({ features: intersectFeatures(client, runtime) }),

  error_from_payload: ({ payload }) => {
    const { code, message, retryable, details } = errorFromPayload(payload);
    return { code, message, retryable, details };
  },

  envelope: ({ text, receiver }) => ({ text: Envelope.parse(text, receiver).toString() }),
};
