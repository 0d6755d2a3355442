package api

import (
	"errors"
	"fmt"
	"net/url"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// LogOptions reads what a log is asked for from a URL's parameters, as every API client writes them; what cannot be read is an error that names the parameter.
func LogOptions(query url.Values) (*corev1.PodLogOptions, error) {
	o := &corev1.PodLogOptions{}
	var errs []error
	read := func(name string, convert func(values *[]string) error) {
		if values := query[name]; len(values) > 0 {
			if err := convert(&values); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	flag := func(to *bool) func(*[]string) error {
		return func(values *[]string) error { return runtime.Convert_Slice_string_To_bool(values, to, nil) }
	}
	number := func(to **int64) func(*[]string) error {
		return func(values *[]string) error { return runtime.Convert_Slice_string_To_Pointer_int64(values, to, nil) }
	}
	read("follow", flag(&o.Follow))
	read("previous", flag(&o.Previous))
	read("timestamps", flag(&o.Timestamps))
	read("sinceSeconds", number(&o.SinceSeconds))
	read("sinceTime", func(values *[]string) error {
		return metav1.Convert_Slice_string_To_Pointer_v1_Time(values, &o.SinceTime, nil)
	})
	read("tailLines", number(&o.TailLines))
	read("limitBytes", number(&o.LimitBytes))
	o.Container = query.Get("container")
	if query.Has("stream") {
		o.Stream = new(query.Get("stream"))
	}
	return o, errors.Join(errs...)
}

var logStreams = []string{corev1.LogStreamAll, corev1.LogStreamStderr, corev1.LogStreamStdout}

// ValidateLogOptions is what of a log cannot be had so.
func ValidateLogOptions(o *corev1.PodLogOptions) (errs field.ErrorList) {
	if o.TailLines != nil && *o.TailLines < 0 {
		errs = append(errs, field.Invalid(field.NewPath("tailLines"), *o.TailLines, "must be greater than or equal to 0"))
	}
	for _, positive := range []struct {
		name  string
		value *int64
	}{{"limitBytes", o.LimitBytes}, {"sinceSeconds", o.SinceSeconds}} {
		if positive.value != nil && *positive.value < 1 {
			errs = append(errs, field.Invalid(field.NewPath(positive.name), *positive.value, "must be greater than 0"))
		}
	}
	if o.SinceSeconds != nil && o.SinceTime != nil {
		errs = append(errs, field.Forbidden(field.NewPath(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"))
	}
	if o.Stream == nil {
		return errs
	}
	if !slices.Contains(logStreams, *o.Stream) {
		errs = append(errs, field.NotSupported(field.NewPath("stream"), *o.Stream, logStreams))
	}
	if *o.Stream != corev1.LogStreamAll && o.TailLines != nil {
		errs = append(errs, field.Forbidden(field.NewPath(""), "`tailLines` and specific `stream` are mutually exclusive for now"))
	}
	return errs
}
