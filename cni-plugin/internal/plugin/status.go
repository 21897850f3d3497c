package plugin

import (
	"fmt"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// status answers whether an ADD would work now. The codes are the specification's: 50, it would not; 51, it would not,
// and containers that run may be cut off too.
func status(args *skel.CmdArgs) error {
	c, err := ParseConf(args.StdinData)
	if err != nil {
		return err
	}
	e, err := readEnv(c.SubnetFile)
	d := AskDaemon(c.SubnetFile)
	what, todo := d.explain()
	if err != nil {
		return types.NewError(types.ErrPluginNotAvailable, fmt.Sprintf("network %q is not ready: %v: %s", c.Name, err, what),
			todo)
	}
	if d.Liveness != Ready && d.Liveness != NoSocket {
		return types.NewError(types.ErrLimitedConnectivity, fmt.Sprintf("network %q: %s", c.Name, what), todo)
	}
	to := delegate{c.generate(e), args.Path}
	if err := to.programs(); err != nil {
		return err
	}
	if err := c.bridgeStatus(to.config, e); err != nil {
		return types.NewError(types.ErrLimitedConnectivity, err.Msg, err.Details)
	}
	return to.status(args)
}

// programs looks for the programs that an ADD would run.
func (d delegate) programs() error {
	if _, err := d.program(); err != nil {
		return err
	}
	var ipam struct {
		Type string `json:"type"`
	}
	if err := d.config.decode("ipam", &ipam); err != nil || ipam.Type == "" {
		return err
	}
	_, err := findProgram(ipam.Type, d.path)
	return err
}

func (d delegate) status(args *skel.CmdArgs) error {
	err := d.call("STATUS", args)
	if err == nil {
		return nil
	}
	switch code := codeOf(err); code {
	case types.ErrPluginNotAvailable, types.ErrLimitedConnectivity:
		return err
	case types.ErrIncompatibleCNIVersion, types.ErrInvalidEnvironmentVariables:
		return types.NewError(types.ErrPluginNotAvailable, err.Error(), tooOld)
	}
	return types.NewError(types.ErrPluginNotAvailable, err.Error(), "")
}
