package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// CNI is how container runtimes of this host find the plugin.
type CNI struct {
	Dir      string // of configurations
	Err      error  // why it was not read
	Files    []CNIFile
	Bin      []string        // folders of programs
	Programs map[string]bool // whether a program that the files name is in one of them
}

// CNIFile is one file, in the order of runtimes: they use the first.
type CNIFile struct {
	Name    string
	Plugins []CNIPlugin
	Err     error
}

// CNIPlugin is one plugin of a file. What it does not give has its default.
type CNIPlugin struct {
	Type, Delegate, IPAM, Bridge, SubnetFile string
}

const flannelPlugin = "flannel"

// Needs are the programs that a plugin runs, itself included.
func (p CNIPlugin) Needs() []string {
	if p.Type != flannelPlugin {
		return []string{p.Type}
	}
	out := []string{p.Type, p.Delegate}
	if p.Delegate == "bridge" {
		out = append(out, p.IPAM)
	}
	return out
}

func (c CNIFile) flannel() (CNIPlugin, bool) {
	i := slices.IndexFunc(c.Plugins, func(p CNIPlugin) bool { return p.Type == flannelPlugin })
	if i < 0 {
		return CNIPlugin{}, false
	}
	return c.Plugins[i], true
}

// plugin returns the first file that names the plugin.
func (c CNI) plugin() (i int, p CNIPlugin, ok bool) {
	for i, file := range c.Files {
		if p, ok := file.flannel(); ok {
			return i, p, true
		}
	}
	return 0, CNIPlugin{}, false
}

// delegates reports whether a plugin calls another one, and so may come first.
func (p CNIPlugin) delegates() bool { return p.Type == "multus" || p.Type == "multus-shim" }

const referenceFix = "install the reference plugins of the CNI project (package containernetworking-plugins)"

// checkCNI looks at the files of the container runtime.
func checkCNI(f *Facts) Finding {
	c := f.CNI
	i, p, ok := c.plugin()
	if !ok {
		return f.noPlugin()
	}
	if missing := c.missing(c.Files[i]); len(missing) > 0 {
		fix := referenceFix
		if slices.Contains(missing, flannelPlugin) {
			fix = restartFix // the init container copies it
		}
		return fail(fix, "%s names programs that are not in %s: %s", c.Files[i].Name, strings.Join(c.Bin, " or "),
			strings.Join(missing, ", "))
	}
	if p.SubnetFile != f.SubnetFile {
		fix := fmt.Sprintf(`write "subnetFile": %q into the plugin's entry in %s/%s`, f.SubnetFile, c.Dir, c.Files[i].Name)
		return fail(fix, "the plugin reads %s, the daemon writes %s", p.SubnetFile, f.SubnetFile)
	}
	if first := c.Files[0]; i > 0 && !slices.ContainsFunc(first.Plugins, CNIPlugin.delegates) {
		return warn(fmt.Sprintf("remove %s/%s, if pods are to be in this network", c.Dir, first.Name),
			"the container runtime uses %s, which comes before %s", first.Name, c.Files[i].Name)
	}
	return pass("%s, all programs are there", c.Files[i].Name)
}

// noPlugin is the finding if no file names the plugin: on a node of Kubernetes pods cannot start then, unless another
// plugin uses the network.
func (f *Facts) noPlugin() Finding {
	c := f.CNI
	for _, file := range c.Files {
		if file.Err != nil {
			return fail(fmt.Sprintf("repair or remove %s/%s", c.Dir, file.Name), "%s: %v", file.Name, file.Err)
		}
	}
	switch {
	case f.Pod == nil && !f.inKubernetes():
		return skip("no configuration of CNI names the plugin")
	case c.Err != nil:
		return skip("the configurations of CNI are not visible here: %v", c.Err)
	case len(c.Files) > 0:
		return warn(restartFix, "no file in %s names the plugin flannel; the container runtime uses %s", c.Dir,
			c.Files[0].Name)
	}
	return fail(restartFix, "%s is empty: no pod can be started on this node", c.Dir)
}

// missing returns the programs of a file that are not there.
func (c CNI) missing(file CNIFile) (out []string) {
	for _, p := range file.Plugins {
		for _, name := range p.Needs() {
			if !c.Programs[name] && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// bridgeName returns the bridge that the plugin puts pods on.
func (c CNI) bridgeName() string {
	if _, p, ok := c.plugin(); ok && p.Delegate == "bridge" {
		return p.Bridge
	}
	return ""
}
