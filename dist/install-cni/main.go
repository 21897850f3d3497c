// Command install-cni puts the CNI plugin and its configuration onto a host, from a container that has the host's
// folders mounted. A plugin that is running, and a kubelet that is reading, never see half a file.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"flanneld/version"
)

func main() {
	plugin := flag.String("plugin", "/opt/cni/bin/flannel", "the plugin's `file` in the image")
	bin := flag.String("bin", "/host/opt/cni/bin", "`folder` of the host's plugins")
	config := flag.String("config", "", "`file` with the network configuration list; none: only the plugin is installed")
	net := flag.String("net", "/host/etc/cni/net.d", "`folder` of the host's network configurations")
	says := flag.Bool("version", false, "print the version and exit; the details of the build go to standard error")
	flag.Parse()
	if *says {
		version.This().Print(os.Stdout, os.Stderr)
		return
	}
	// The plugin first: a runtime uses a configuration as soon as it sees one.
	err := install(*plugin, filepath.Join(*bin, filepath.Base(*plugin)), 0o755)
	if err == nil && *config != "" {
		err = install(*config, filepath.Join(*net, filepath.Base(*config)), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "install-cni:", err)
		os.Exit(1)
	}
}

// install replaces a file by a copy of another, whole or not at all.
func install(from, to string, mode os.FileMode) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = io.Copy(f, source)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", to, err)
	}
	return os.Rename(f.Name(), to)
}
