package plugin

import (
	"fmt"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"flanneld/subnet"
)

// errSubnetChanged is the code of errors that a change of this host's subnet is behind. Codes from 100 on are a
// plugin's own.
const errSubnetChanged uint = 100

// Verbs returns the functions for each verb that the CNI library dispatches.
func Verbs() skel.CNIFuncs {
	return skel.CNIFuncs{Add: add, Del: del, Check: check, Status: status, GC: gc}
}

// env reads the subnet file. Without one, the error says what the daemon waits for; it is worth trying again, so the
// code says that.
func (c Conf) env() (subnet.Env, error) {
	e, err := readEnv(c.SubnetFile)
	if err != nil {
		what, todo := AskDaemon(c.SubnetFile).explain()
		return subnet.Env{}, types.NewError(types.ErrTryAgainLater,
			fmt.Sprintf("network %q is not ready: %v: %s", c.Name, err, what), todo)
	}
	return e, nil
}

// fallback is what things are freed with when nothing better is known.
func (c Conf) fallback() object {
	e, err := readEnv(c.SubnetFile)
	if err != nil {
		e = unknownEnv
	}
	return c.generate(e)
}

// saved returns the record of a file, or, of one that cannot be read, what the network's configuration would make of it
// now.
func (c Conf) saved(e *entry) record {
	r, err := parseRecord(e.text)
	if err != nil {
		return record{config: c.fallback()}
	}
	return r
}

func ioFailure(err error) error {
	return types.NewError(types.ErrIOFailure, err.Error(), "")
}
