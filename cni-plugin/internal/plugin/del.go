package plugin

import (
	"errors"
	"io/fs"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// del succeeds when nothing is saved: the container was never attached, or is detached already.
func del(args *skel.CmdArgs) error {
	c, err := ParseConf(args.StdinData)
	if err != nil {
		return err
	}
	if err := container(args); err != nil {
		return err
	}
	e, err := store{c.DataDir}.find(Key{args.ContainerID, args.IfName}, true)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return busyOr(err)
	}
	defer e.close()
	if err := c.release(c.saved(e), args); err != nil {
		return err
	}
	return e.remove()
}

// free detaches what nobody asks for any more, and removes its file.
func (c Conf) free(e *entry, k Key, cniPath string) error {
	defer e.close()
	r := c.saved(e)
	a := &skel.CmdArgs{ContainerID: k.ContainerID, IfName: k.IfName, Netns: r.netns(), Path: cniPath}
	if err := c.release(r, a); err != nil {
		return err
	}
	return e.remove()
}

// busyOr turns an error of the store into one that tells the runtime whether to try again.
func busyOr(err error) error {
	if errors.Is(err, errBusy) {
		return types.NewError(types.ErrTryAgainLater, err.Error(), "")
	}
	return ioFailure(err)
}
