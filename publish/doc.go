// Package publish tells the rest of the host about the network after each pass: the subnet file, the state folder,
// readiness and the status. It never changes the network.
package publish
