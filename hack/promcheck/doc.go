// Package promcheck holds the check of the alert rules and the dashboard by the code of promtool. It is a module of its
// own: Prometheus would bring hundreds of modules into that of the daemon.
package promcheck
