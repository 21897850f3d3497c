package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// bootModules are what the machine needs until it has its root folder.
var bootModules = []string{"virtio_pci", "9pnet_virtio", "9p", "overlay"}

// initramfs writes the archive that a kernel starts from: a program as /init, and the modules that it loads, in their
// order.
func initramfs(w io.Writer, k kernel, program string) error {
	b := bufio.NewWriter(w)
	a := &archive{w: b}
	text, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	a.add("init", 0o100755, text)
	for _, dir := range []string{"dev", "modules", "lower", "layer", "root"} {
		a.add(dir, 0o040755, nil)
	}
	deps, err := os.ReadFile(filepath.Join(k.modules(), "modules.dep"))
	if err != nil {
		return err
	}
	for i, file := range withDependencies(string(deps), bootModules) {
		text, err := module(filepath.Join(k.modules(), file))
		if err != nil {
			return err
		}
		a.add(fmt.Sprintf("modules/%02d", i), 0o100644, text)
	}
	a.add("TRAILER!!!", 0, nil)
	if a.err != nil {
		return a.err
	}
	return b.Flush()
}

// module reads a module, whose file may be compressed.
func module(file string) ([]byte, error) {
	if !strings.HasSuffix(file, ".xz") {
		return os.ReadFile(file)
	}
	out, err := exec.Command("xz", "-dc", file).Output()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return out, nil
}

// withDependencies returns the files of modules and of all that they need, in the order in which they can be loaded.
// deps is the text of modules.dep. A module that it does not name is a part of the kernel.
func withDependencies(deps string, names []string) (files []string) {
	needs := map[string][]string{} // by the name of the module: its file, then what it needs, the nearest first
	for line := range strings.Lines(deps) {
		file, more, _ := strings.Cut(strings.TrimSpace(line), ":")
		name, _, _ := strings.Cut(filepath.Base(file), ".ko")
		needs[strings.ReplaceAll(name, "-", "_")] = append([]string{file}, strings.Fields(more)...)
	}
	seen := map[string]bool{}
	for _, name := range names {
		all := needs[name]
		for i := len(all) - 1; i >= 0; i-- {
			if !seen[all[i]] {
				seen[all[i]] = true
				files = append(files, all[i])
			}
		}
	}
	return files
}

// archive writes the format "newc" of cpio, which the kernel reads.
type archive struct {
	w     io.Writer
	inode int
	err   error
}

func (a *archive) add(name string, mode int, content []byte) {
	if a.err != nil {
		return
	}
	a.inode++
	var b bytes.Buffer
	b.WriteString("070701")
	for _, field := range []int{a.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0} {
		fmt.Fprintf(&b, "%08x", field)
	}
	b.WriteString(name + "\x00")
	pad(&b)
	b.Write(content)
	pad(&b)
	_, a.err = a.w.Write(b.Bytes())
}

// pad fills up to the next multiple of four bytes. Each record begins at one.
func pad(b *bytes.Buffer) { b.Write(make([]byte, -b.Len()&3)) }
