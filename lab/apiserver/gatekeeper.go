package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"sigs.k8s.io/yaml"
)

// infos tells what a request asks for.
var infos = request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"),
	GrouplessAPIPrefixes: sets.NewString("api")}

// gatekeeper knows clients by their certificates, and lets through what they may do.
type gatekeeper struct {
	api      *api
	rights   string    // file
	requests io.Writer // of clients that are not in system:masters
}

func (g *gatekeeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/readyz" {
		if err := g.api.ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
		return
	}
	info, err := infos.NewRequestInfo(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	subject := r.TLS.PeerCertificates[0].Subject
	who := &user.DefaultInfo{Name: subject.CommonName, Groups: subject.Organization}
	if !slices.Contains(who.Groups, user.SystemPrivilegedGroup) {
		fmt.Fprintln(g.requests, who.Name, info.Verb, r.URL.RequestURI())
		err = g.may(info.Verb, info.Resource, info.Subresource)
	}
	switch {
	case strings.HasSuffix(info.Path, "/selfsubjectaccessreviews"):
		g.review(w, r)
	case err != nil:
		resource := schema.GroupResource{Group: info.APIGroup, Resource: info.Resource}
		err = apierrors.NewForbidden(resource, info.Name, fmt.Errorf("user %q: %w", who.Name, err))
		responsewriters.ErrorNegotiated(err, g.api.codecs, corev1.SchemeGroupVersion, w, r)
	default:
		// What the library's handlers expect of the filters that kube-apiserver has before them.
		ctx := request.WithReceivedTimestamp(audit.WithAuditContext(r.Context()), time.Now())
		ctx = request.WithRequestInfo(request.WithUser(ctx, who), info)
		g.api.ServeHTTP(w, r.WithContext(ctx))
	}
}

// may returns an error if the ClusterRole does not grant a right.
func (g *gatekeeper) may(verb, resource, subresource string) error {
	role, err := readRole(g.rights)
	if err != nil {
		return err
	}
	if subresource != "" {
		resource += "/" + subresource
	}
	for _, r := range role.Rules {
		if slices.Contains(r.APIGroups, corev1.GroupName) && slices.Contains(r.Resources, resource) &&
			slices.Contains(r.Verbs, verb) {
			return nil
		}
	}
	return fmt.Errorf("cannot %s resource %q at the cluster scope", verb, resource)
}

// review answers a client that asks what it may do.
func (g *gatekeeper) review(w http.ResponseWriter, r *http.Request) {
	var v authorizationv1.SelfSubjectAccessReview
	if err := json.NewDecoder(r.Body).Decode(&v); err != nil || v.Spec.ResourceAttributes == nil {
		http.Error(w, "no review of a resource", http.StatusBadRequest)
		return
	}
	a := v.Spec.ResourceAttributes
	v.Status.Allowed = g.may(a.Verb, a.Resource, a.Subresource) == nil
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(v) // a client that has gone needs no answer
}

// readRole returns the ClusterRole of a manifest.
func readRole(file string) (rbacv1.ClusterRole, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return rbacv1.ClusterRole{}, err
	}
	for part := range strings.SplitSeq(string(text), "\n---\n") {
		var role rbacv1.ClusterRole
		if err := yaml.Unmarshal([]byte(part), &role); err == nil && role.Kind == "ClusterRole" {
			return role, nil
		}
	}
	return rbacv1.ClusterRole{}, errors.New("no ClusterRole in " + file)
}
