document.title = "s3 annotate";
