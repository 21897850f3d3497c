// Package doctor turns facts about a host and its network into findings: what is wrong, the evidence, and the
// command that repairs it. It is pure. Whoever calls it gathers the facts; a check reads nothing itself.
//
//	gather ─▶ Facts ─▶ Derive: what this host should have ─▶ gather what depends on it
//	   ─▶ Diagnose: one Finding for each check
package doctor
