// Package options reads the flags of the daemon from the command line and the environment into a validated struct. It
// is the only home of their names and defaults: manual page, completions and flannelctl take them from here.
package options
