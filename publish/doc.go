// Package publish tells the rest of the host about the network after each pass: the subnet file, the state folder,
// readiness and the status. Peers are in the state folder before a pass routes to them. It never changes the network.
package publish
