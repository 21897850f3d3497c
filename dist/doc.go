// Package dist holds what puts flanneld on real hosts: units, the docker script, packages, cloud configurations. It has
// no code of its own, only the tests of these files.
package dist
