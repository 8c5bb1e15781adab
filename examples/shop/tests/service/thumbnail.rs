use std::io::Cursor;

use image::{DynamicImage, ImageFormat};
use reqwest::{RequestBuilder, StatusCode};

use crate::support::{BOTH, Service, read};

fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let picture = DynamicImage::new_rgb8(width, height);
    picture.write_to(&mut file, format).unwrap();
    file.into_inner()
}

fn upload(service: &Service, path: &str, content: &[u8]) -> RequestBuilder {
    let mut body =
        b"--edge\r\ncontent-disposition: form-data; name=\"picture\"; filename=\"x.png\"\r\n\
                     content-type: image/png\r\n\r\n"
            .to_vec();
    body.extend_from_slice(content);
    body.extend_from_slice(b"\r\n--edge--\r\n");
    let request = service
        .client
        .post(service.url(&format!("{path}/pictures")));
    request
        .header("content-type", "multipart/form-data; boundary=edge")
        .body(body)
}

#[tokio::test]
async fn a_picture_gets_a_thumbnail() {
    for path in BOTH {
        let service = Service::start().await;
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let (status, reply) = read(upload(&service, path, &picture(400, 200, format))).await;
            assert_eq!(status, StatusCode::CREATED);
            service.drained().await;

            let response = service
                .get(&format!("/thumbnails/{}", reply["id"]))
                .send()
                .await
                .unwrap();
            assert_eq!(response.headers()["content-type"], "image/png");
            assert_eq!(response.headers()["x-content-type-options"], "nosniff");
            let thumbnail = image::load_from_memory(&response.bytes().await.unwrap()).unwrap();
            assert_eq!((thumbnail.width(), thumbnail.height()), (160, 80));
        }
    }
}

#[tokio::test]
async fn what_is_no_picture_is_refused_whatever_it_says_it_is() {
    let service = Service::start().await;
    let mut gif = picture(4, 4, ImageFormat::Png);
    gif[..6].copy_from_slice(b"GIF89a");
    let mut cut = picture(400, 200, ImageFormat::Png);
    cut.truncate(20);
    for content in [&b"<svg onload=alert(1)>"[..], b"", &gif, &cut] {
        for path in BOTH {
            let (status, reply) = read(upload(&service, path, content)).await;
            assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
            assert_eq!(reply["message"], "A picture has to be a PNG or a JPEG.");
        }
    }
    assert!(service.rows::<i64>("SELECT id FROM pictures").is_empty());
    assert_eq!(service.shop.runner.stats().deferred, 0);
}

#[tokio::test]
async fn too_large_an_upload_is_refused() {
    let service = Service::start().await;
    for path in BOTH {
        let mut large = picture(4, 4, ImageFormat::Png);
        large.resize(4 * 1024 * 1024, 0);
        let (status, reply) = read(upload(&service, path, &large)).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(reply["message"], "An upload may have 4 MB at most.");
    }
    assert!(service.rows::<i64>("SELECT id FROM pictures").is_empty());
}

#[tokio::test]
async fn a_picture_of_too_many_pixels_is_refused_before_it_is_unpacked() {
    let service = Service::start().await;
    let wide = picture(6001, 1, ImageFormat::Png);
    let (status, reply) = read(upload(&service, "", &wide)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        reply["message"],
        "A picture has at most 6000 by 6000 pixels."
    );
    assert!(service.rows::<i64>("SELECT id FROM pictures").is_empty());
}

#[tokio::test]
async fn a_broken_picture_is_kept_and_its_thumbnail_is_a_failure_on_the_account() {
    let service = Service::start().await;
    // Its head is right, so this is seen when it is unpacked.
    let mut broken = picture(400, 200, ImageFormat::Png);
    broken.truncate(broken.len() / 2);
    let (status, reply) = read(upload(&service, "", &broken)).await;
    assert_eq!(status, StatusCode::CREATED);
    service.drained().await;
    assert_eq!(service.shop.runner.stats().failed, 1);
    let (status, _) = read(service.get(&format!("/thumbnails/{}", reply["id"]))).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}
