// Package systemd tells the service manager how the daemon is, and keeps open files with it over a restart. Without a
// service manager it does nothing.
package systemd
