package options

import (
	"flag"
	"slices"
	"strings"
)

// EnvPrefix begins the names of the daemon's environment variables.
const EnvPrefix = "FLANNELD_"

// Variable returns the environment variable of a flag: FLANNELD_ETCD_ENDPOINTS for etcd-endpoints.
func Variable(flagName string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(flagName, "-", "_"))
}

// readEnviron sets the flags that the command line has not set from the environment, where an empty value counts as
// none. It returns the variables that look like a flag and are none, sorted. The flag -version is left out:
// images use its name for a variable of their own.
func readEnviron(fs *flag.FlagSet, environ []string) (unknown []string) {
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[Variable(f.Name)] = true })
	names := map[string]string{}
	fs.VisitAll(func(f *flag.Flag) { names[Variable(f.Name)] = f.Name })
	delete(names, Variable("version"))
	for _, entry := range environ {
		key, value, _ := strings.Cut(entry, "=")
		name, known := names[key]
		switch {
		case !strings.HasPrefix(key, EnvPrefix):
		case !known:
			unknown = append(unknown, key)
		case value != "" && !given[key]:
			given[key] = true
			_ = fs.Set(name, value) // a bad value is gathered
		}
	}
	slices.Sort(unknown)
	return unknown
}
