// Package join lets hosts into a secured store: the token that an operator hands over, the service of the members that
// takes it, and the client of the host that joins. A host proves that it may join with the secret of the token, and
// knows the members by the hash of their authority in it.
package join
