package main

import (
	"flag"
	"slices"
	"strings"
)

const envPrefix = "FLANNELD_"

// envName returns the environment variable of a flag: FLANNELD_ETCD_ENDPOINTS for etcd-endpoints.
func envName(flagName string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flagName, "-", "_"))
}

// readEnviron sets the flags that the command line has not set from the environment, where an empty value counts as
// none. It returns the variables that look like a flag and are none, sorted. The flag -version is left out:
// images use its name for a variable of their own.
func readEnviron(fs *flag.FlagSet, environ []string) (unknown []string) {
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[envName(f.Name)] = true })
	names := map[string]string{}
	fs.VisitAll(func(f *flag.Flag) { names[envName(f.Name)] = f.Name })
	delete(names, envName("version"))
	for _, entry := range environ {
		key, value, _ := strings.Cut(entry, "=")
		name, known := names[key]
		switch {
		case !strings.HasPrefix(key, envPrefix):
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
