package api

import "strings"

// The paths of version 1. All answer JSON; those marked POST change something.
const (
	PathReady      = "/v1/ready"      // Ready: 200 if ready, else 503
	PathStatus     = "/v1/status"     // Status
	PathLeases     = "/v1/leases"     // Leases
	PathPeers      = "/v1/peers"      // []Peer
	PathEvents     = "/v1/events"     // []Event, oldest first
	PathStore      = "/v1/store"      // Store, with the credentials: never to be shown
	PathKubernetes = "/v1/kubernetes" // Kubernetes; 404 where the store is another one
	PathValidate   = "/v1/validate"   // POST a network configuration: Verdict
	PathDrain      = "/v1/drain"      // POST: Drained
	PathRotate     = "/v1/rotate"     // POST: Rotated

	PathTokens       = "/v1/tokens"          // []Token; POST a TokenRequest: Token, with the secret: never to be logged
	PathTokenRevoke  = "/v1/tokens/revoke"   // POST a Named, by ID: Named
	PathMembers      = "/v1/members"         // []Member
	PathMemberRemove = "/v1/members/remove"  // POST a Named, by host, user or ID: Member
	PathRecover      = "/v1/members/recover" // POST: Restored
	PathRestore      = "/v1/restore"         // POST a Named, by path of a snapshot, empty for the newest: Restored
	PathHosts        = "/v1/hosts"           // []JoinedHost
	PathHostRemove   = "/v1/hosts/remove"    // POST a Named, by host or user: JoinedHost
)

// SocketPath returns where the daemon that writes this subnet file listens: one socket for each network of a host.
func SocketPath(subnetFile string) string {
	return strings.TrimSuffix(subnetFile, ".env") + ".sock"
}
