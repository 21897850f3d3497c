// Package status gathers the facts about the daemon and judges them: ready, degraded or not ready, and why. It only
// reads; the socket, the health port, the metrics and the service manager show what it says.
package status
