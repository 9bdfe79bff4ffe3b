{{- define "tollwire.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "tollwire.selector" -}}
app.kubernetes.io/name: tollwire
{{- if ne .Release.Name .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- end }}

{{- /* The port that the configuration listens on. */}}
{{- define "tollwire.port" -}}
{{ .Values.config.export.listen | splitList ":" | last }}
{{- end }}
