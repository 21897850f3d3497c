package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

const (
	oldVersion = "0.3.1"
	tooOld     = "the delegate is too old for this cniVersion: install a newer one, or lower the network's " +
		"cniVersion to 1.0.0"
)

// delegate is the plugin that does the work, with its configuration.
type delegate struct {
	config object
	path   string // CNI_PATH
}

// program finds the delegate's program.
func (d delegate) program() (string, error) { return findProgram(d.config.text("type"), d.path) }

func findProgram(name, cniPath string) (string, error) {
	program, err := invoke.FindInPath(name, filepath.SplitList(cniPath))
	if err != nil {
		return "", types.NewError(types.ErrPluginNotAvailable,
			fmt.Sprintf("the plugin %q is not in CNI_PATH=%s", name, cniPath),
			"install the reference plugins of containernetworking, or say where they are in the runtime's configuration")
	}
	return program, nil
}

// add attaches a container.
func (d delegate) add(a *skel.CmdArgs) (types.Result, error) {
	program, text, err := d.prepare()
	if err != nil {
		return nil, err
	}
	result, err := invoke.ExecPluginWithResult(context.Background(), program, text, d.args("ADD", a), nil)
	return result, d.says("ADD", err)
}

// free detaches a container. A delegate that does not know the version of the configuration, because it was exchanged
// for an older one or has never been able to attach anything, is asked in one that all know: there is no result whose
// form could differ.
func (d delegate) free(a *skel.CmdArgs) error {
	err := d.call("DEL", a)
	if err == nil || codeOf(err) != types.ErrIncompatibleCNIVersion {
		return err
	}
	d.config = maps.Clone(d.config)
	d.config.set("cniVersion", oldVersion)
	return d.call("DEL", a)
}

// call runs a verb that has no result. Of the arguments, those that the verb has no use for may be empty.
func (d delegate) call(verb string, a *skel.CmdArgs) error {
	program, text, err := d.prepare()
	if err != nil {
		return err
	}
	return d.says(verb, invoke.ExecPluginWithoutResult(context.Background(), program, text, d.args(verb, a), nil))
}

func (d delegate) prepare() (program string, text []byte, err error) {
	if program, err = d.program(); err != nil {
		return "", nil, err
	}
	text, err = json.Marshal(d.config)
	return program, text, err
}

func (d delegate) args(verb string, a *skel.CmdArgs) *invoke.Args {
	netns := a.Netns
	if verb == "DEL" {
		netns = liveNetns(netns)
	}
	return &invoke.Args{
		Command:       verb,
		ContainerID:   a.ContainerID,
		NetNS:         netns,
		IfName:        a.IfName,
		PluginArgsStr: a.Args,
		Path:          d.path,
	}
}

// says adds whose error it is, and keeps its code.
func (d delegate) says(verb string, err error) error {
	if err == nil {
		return nil
	}
	code, details := types.ErrInternal, ""
	var e *types.Error
	msg := err.Error()
	if errors.As(err, &e) {
		code, msg, details = e.Code, e.Msg, e.Details
	}
	if code == types.ErrIncompatibleCNIVersion {
		details = strings.TrimPrefix(details+"; "+tooOld, "; ")
	}
	return types.NewError(code, fmt.Sprintf("delegate %s, %s: %s", d.config.text("type"), verb, msg), details)
}

// codeOf returns the code of a CNI error, or that of an internal one.
func codeOf(err error) uint {
	var e *types.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return types.ErrInternal
}
