// Package api is what the daemon says on its socket: the paths, the types on the wire, and the client. Fields are only
// ever added within a version; a reader ignores those that it does not know.
package api
