// Package authority is the certificate authority of an embedded store: it makes and keeps keys and certificates in one
// folder. A key never leaves the host that made it, but for that of the authority, which members of the store hand to
// each other.
package authority
