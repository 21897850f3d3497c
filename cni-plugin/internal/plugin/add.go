package plugin

import (
	"errors"
	"io/fs"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

func add(args *skel.CmdArgs) error {
	c, err := ParseConf(args.StdinData)
	if err != nil {
		return err
	}
	if err := container(args); err != nil {
		return err
	}
	e, err := c.env()
	if err != nil {
		return err
	}
	d := delegate{c.generate(e), args.Path}
	if err := d.programs(); err != nil {
		return err
	}
	b, err := c.prepareBridge(d.config, e)
	if err != nil {
		return err
	}
	defer b.close()
	result, err := c.attach(d, args)
	if err != nil {
		return err
	}
	return printResult(result, args.StdinData)
}

// attach saves the configuration and calls the delegate; if that fails, nothing is left.
func (c Conf) attach(d delegate, args *skel.CmdArgs) (types.Result, error) {
	s, k := store{c.DataDir}, Key{args.ContainerID, args.IfName}
	r := record{owner{IfName: args.IfName, Netns: args.Netns, NetnsID: netnsID(args.Netns)}, d.config}
	old, err := s.find(k, false)
	switch {
	case err == nil && sameAttachment(c.saved(old).owner, r.owner):
		return again(old, r, d, args)
	case err == nil:
		if err := c.free(old, k, args.Path); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, busyOr(err)
	}
	now, err := s.add(k, r)
	if err != nil {
		return nil, ioFailure(err)
	}
	result, err := d.add(args)
	if err == nil {
		err = now.done()
	}
	if err != nil {
		return nil, c.undo(now, args, err)
	}
	now.close()
	return result, nil
}

// again attaches what is attached already, in the same namespace as far as we know: the delegate decides. If it
// refuses, what stands stays.
func again(old *entry, r record, d delegate, args *skel.CmdArgs) (types.Result, error) {
	defer old.close()
	result, err := d.add(args)
	if err != nil {
		return nil, err
	}
	if err := old.replace(r); err != nil {
		return nil, ioFailure(err)
	}
	return result, nil
}

// sameAttachment reports whether two owners are one attachment that stands.
func sameAttachment(saved, now owner) bool { return saved.Refused == "" && saved == now }

// undo frees what a failed ADD may have taken. The file stays if that is not possible, for the DEL that follows, or a
// GC. It notes what the delegate says, so that a delegate that goes on saying so is known to refuse the configuration.
func (c Conf) undo(now *entry, args *skel.CmdArgs, cause error) error {
	r := c.saved(now)
	err := delegate{r.config, args.Path}.free(args)
	if err == nil {
		if err := now.remove(); err != nil {
			return types.NewError(codeOf(cause), cause.Error(), err.Error())
		}
		return cause
	}
	defer now.close()
	details := "freeing what it has taken so far: " + err.Error()
	if codeOf(err) != types.ErrTryAgainLater {
		r.Refused = err.Error()
		if err := now.replace(r); err != nil {
			details += "; " + err.Error()
		}
	}
	return types.NewError(codeOf(cause), cause.Error(), details)
}

// printResult writes the result in the version of the configuration.
func printResult(result types.Result, conf []byte) error {
	v, err := (&version.ConfigDecoder{}).Decode(conf)
	if err != nil {
		return types.NewError(types.ErrDecodingFailure, err.Error(), "")
	}
	if err := types.PrintResult(result, v); err != nil {
		return types.NewError(types.ErrIncompatibleCNIVersion, "result in version "+v+": "+err.Error(), "")
	}
	return nil
}
