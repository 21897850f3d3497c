package plugin

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// nsfsMagic is the file system type of namespaces.
const nsfsMagic = 0x6e736673

// netnsID tells namespaces apart: device and inode of a namespace's file; "" if there is no namespace at the path. The
// kernel gives the number of a namespace that has ended to the next one, so it proves something only together with the
// path.
func netnsID(path string) string {
	var fs syscall.Statfs_t
	if path == "" || syscall.Statfs(path, &fs) != nil || int64(fs.Type) != nsfsMagic {
		return ""
	}
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// container refuses a call for the namespace that the plugin itself runs in: the delegate would attach, or detach, the
// host. It comes before anything else, whereas the CNI library looks when all is done.
func container(args *skel.CmdArgs) error {
	if args.NetnsOverride == "1" || strings.EqualFold(args.NetnsOverride, "true") {
		return nil
	}
	if id := netnsID(args.Netns); id != "" && id == netnsID("/proc/self/ns/net") {
		return types.NewError(types.ErrInvalidNetNS,
			fmt.Sprintf("CNI_NETNS=%s is the namespace that the plugin runs in", args.Netns), "")
	}
	return nil
}

// liveNetns returns the path if there is a namespace. A file without one, as a reboot may leave, makes some plugins
// fail for ever.
func liveNetns(path string) string {
	if netnsID(path) == "" {
		return ""
	}
	return path
}
