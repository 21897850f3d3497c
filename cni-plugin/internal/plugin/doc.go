// Package plugin is the CNI plugin "flannel": each verb of the specification, on top of a delegate that does the work
// in the kernel. Its functions read the environment of a CNI call and end with the process; nothing in here is a
// daemon.
//
//	ADD   subnet.env ─▶ configuration for the delegate ─▶ saved, locked ─▶ delegate ADD ─▶ result
//	DEL                                saved configuration ─▶ delegate DEL ─▶ file removed
package plugin
