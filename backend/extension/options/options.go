// Package options reads the options of the extension backend in the network configuration. Whoever checks a
// configuration needs no more of the backend.
package options

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"flanneld/subnet"
)

// Type is the name of the backend in the network configuration and in records.
const Type = "extension"

// Options are the commands in the network configuration, each split into words. One that is not set has no words.
type Options struct {
	PreStartup   []string // before the lease; what it prints is published
	PostStartup  []string // after the lease
	SubnetAdd    []string // for each peer
	SubnetRemove []string // for each peer that leaves
}

// Parse reads the object "Backend" of the network configuration. The error joins all that is wrong.
func Parse(raw []byte) (Options, error) {
	var in struct {
		PreStartupCommand, PostStartupCommand, SubnetAddCommand, SubnetRemoveCommand string
	}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &in); err != nil {
			return Options{}, fmt.Errorf("backend extension: %w", subnet.WrongType(err))
		}
	}
	var errs []error
	words := func(name, command string) []string {
		if err := checkNoShell(command); err != nil {
			errs = append(errs, fmt.Errorf("backend extension: %s: %w", name, err))
		}
		return strings.Fields(command)
	}
	o := Options{
		words("PreStartupCommand", in.PreStartupCommand), words("PostStartupCommand", in.PostStartupCommand),
		words("SubnetAddCommand", in.SubnetAddCommand), words("SubnetRemoveCommand", in.SubnetRemoveCommand),
	}
	if len(o.SubnetAdd) == 0 && len(o.SubnetRemove) > 0 {
		errs = append(errs, errors.New("backend extension: SubnetRemoveCommand needs SubnetAddCommand, which is not set"))
	}
	return o, errors.Join(errs...)
}

// checkNoShell refuses what only a shell understands. Releases of flannel before 0.28.2 ran one, and their documents
// show such commands.
func checkNoShell(command string) error {
	first, _, _ := strings.Cut(strings.TrimSpace(command), " ")
	found := ""
	if i := strings.IndexAny(command, ";|&<>()`\"'\\\n"); i >= 0 {
		found = command[i : i+1]
	} else if strings.Contains(first, "=") || first == "export" || first == "cd" {
		found = first
	}
	if found == "" {
		return nil
	}
	return fmt.Errorf("%q is for a shell, and the command is run without one: put the command into an executable "+
		"script, and name its path here", found)
}
