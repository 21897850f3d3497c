// Package embedded is the secured store of a small cluster, as a daemon has it: on a member, the authority, the
// certificates, the rights in etcd and the service that lets hosts in; on any other host, the credentials that it has
// been given. A store that was insecure stays so until the operator says otherwise, and the other way round.
package embedded
