package main

import (
	"path/filepath"
	"slices"
	"strings"

	"flanneld/options"
	"flanneld/subnet"
)

// settings are values of the daemon's flags, by the name of the flag.
type settings map[string]string

// maxConf bounds an environment file, in bytes.
const maxConf = 1 << 20

// readConf returns the settings of the daemon that writes a subnet file, and the environment file that holds them.
// The packaged units read flanneld.conf for the host's first network and NAME.conf for another one; without a subnet
// file it is the first. A folder without such a file gives nothing.
func readConf(folder, subnetFile string) (settings, string) {
	first := filepath.Join(folder, "flanneld.conf")
	files, _ := filepath.Glob(filepath.Join(folder, "*.conf")) // the pattern is well formed
	slices.Sort(files)
	for _, file := range append([]string{first}, files...) {
		text, err := subnet.ReadFile(file, maxConf)
		if err != nil {
			continue
		}
		s := parseConf(string(text))
		of := options.Defaults().SubnetFile
		if file != first {
			name := strings.TrimSuffix(filepath.Base(file), ".conf")
			of = "/run/flannel/networks/" + name + ".env"
			s.setDefault("etcd-prefix", options.Defaults().EtcdPrefix+"/"+name)
		}
		s.setDefault("subnet-file", of)
		if s["subnet-file"] == subnetFile || subnetFile == "" && file == first {
			return s, file
		}
	}
	return nil, ""
}

func (s settings) setDefault(name, value string) {
	if s[name] == "" {
		s[name] = value
	}
}

// parseConf reads an environment file of systemd (systemd.exec(5)). Flags in FLANNEL_OPTIONS win over variables, as
// they do for the daemon.
func parseConf(text string) settings {
	s := settings{}
	var flags string
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(name, "#") || strings.HasPrefix(name, ";") {
			continue
		}
		name, value = strings.TrimSpace(name), unquoted(strings.TrimSpace(value))
		if name == "FLANNEL_OPTIONS" {
			flags = value
		}
		if flag, ok := strings.CutPrefix(name, options.EnvPrefix); ok && value != "" {
			s[strings.ToLower(strings.ReplaceAll(flag, "_", "-"))] = value
		}
	}
	s.parseFlags(words(flags))
	return s
}

// parseFlags takes in the flags of a command line. A switch without a value leaves the next word alone: it begins
// with a dash.
func (s settings) parseFlags(args []string) {
	for i := 0; i < len(args); i++ {
		flag := strings.TrimPrefix(strings.TrimPrefix(args[i], "-"), "-")
		if flag == args[i] {
			continue
		}
		name, value, ok := strings.Cut(flag, "=")
		if !ok && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
			i++
			value = args[i]
		}
		s[name] = value
	}
}

func unquoted(value string) string {
	for _, q := range []string{`"`, `'`} {
		if len(value) > 1 && strings.HasPrefix(value, q) && strings.HasSuffix(value, q) {
			return value[1 : len(value)-1]
		}
	}
	return value
}
